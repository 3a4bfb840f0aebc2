/**
 * A file in parts by /v1/uploads. What was sent is remembered in this browser, by the file's name, size and date: after a
 * lost connection, a closed tab or a restart of the server the same file goes on where it stopped.
 */
import { ApiError, getJson, postJson } from "./api.ts";
import { type Sent, SentParts } from "./sent_parts.ts";
import type { Part, Upload } from "./types.ts";

/** Often enough for a progress bar, far below the server's 64 MiB. */
const PART_BYTES = 8 * 2 ** 20;
/** The server takes so many parts. */
const MAX_PARTS = 10_000;
const WAITS_MS = [1000, 2000, 4000, 8000];

export interface UploadOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (sentBytes: number) => void;
}

const memory = new SentParts();

/** @returns its id of /v1/files. @throws {ApiError} */
export async function uploadFile(file: File, { signal, onProgress }: UploadOptions): Promise<string> {
  memory.tidy();
  let sent = await goOn(file, signal) ?? await begin(file, signal);
  for (;;) {
    const start = sent.parts.length * sent.partBytes;
    onProgress(Math.min(start, file.size));
    if (start >= file.size) break;
    const { id } = await again(
      () => sendPart(sent.upload, file.slice(start, start + sent.partBytes), signal),
      signal,
    );
    sent = { ...sent, parts: [...sent.parts, id] };
    memory.remember(file, sent);
  }
  const part_ids = sent.parts;
  const done = await again(
    () => postJson<Upload>(`/v1/uploads/${sent.upload}/complete`, { part_ids }, { signal }),
    signal,
  );
  memory.forget(file);
  return done.file!.id;
}

async function begin(file: File, signal: AbortSignal): Promise<Sent> {
  const body = {
    filename: file.name,
    purpose: "model",
    bytes: file.size,
    mime_type: "application/octet-stream",
  };
  const { id } = await postJson<Upload>("/v1/uploads", body, { signal });
  const partBytes = Math.max(PART_BYTES, Math.ceil(file.size / MAX_PARTS));
  return { upload: id, partBytes, parts: [] };
}

/** Null when nothing was sent, or the server has dropped it. */
async function goOn(file: File, signal: AbortSignal): Promise<Sent | null> {
  const sent = memory.recall(file);
  if (sent === null) return null;
  try {
    const upload = await getJson<Upload & { parts: readonly Part[] }>(`/v1/uploads/${sent.upload}`, {
      signal,
    });
    const stored = new Set(upload.parts.map(({ id }) => id));
    if (upload.status !== "pending" || !sent.parts.every((id) => stored.has(id))) return null;
    return sent;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

async function sendPart(upload: string, bytes: Blob, signal: AbortSignal): Promise<Part> {
  const body = new FormData();
  body.append("data", bytes, "part");
  const part = await getJson<Part>(`/v1/uploads/${upload}/parts`, { method: "POST", body, signal });
  const hash = await sha256(bytes);
  if (hash === null || hash === part.sha256) return part;
  throw new ApiError("A part of the file was damaged on its way", 0, null);
}

/** Null where the browser does not compute it: pages that came by plain HTTP from another machine. */
async function sha256(bytes: Blob): Promise<string | null> {
  if (!crypto.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await bytes.arrayBuffer()));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tries again what a lost connection or a busy server may have failed; the same bytes are the same part there. */
async function again<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (const waitMs of WAITS_MS) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || !(error instanceof ApiError) || !passes(error.status)) throw error;
      await new Promise((done) => setTimeout(done, waitMs));
    }
  }
  return await work();
}
const passes = (status: number): boolean =>
  status === 0 || status === 429 || status === 502 || status === 503;
