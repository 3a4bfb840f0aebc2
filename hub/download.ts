/** One file of the hub on its way to disk: goes on where it was left, and is named only when its hash is right. */
import { createHash, type Hash } from "node:crypto";
import { dirname, join } from "node:path";
import { asStorageError } from "../store/data_folder.ts";
import { type HubClient, type HubFile, unavailable } from "./client.ts";

export interface DownloadOptions {
  readonly folder: string;
  readonly commit: string;
  /** Before the first new attempt; doubles with each that brought nothing. */
  readonly retryMs: number;
  /** Called with the bytes there are so far. */
  readonly onBytes: (bytes: number) => void;
}

/** Attempts in a row that bring nothing new. */
const MAX_ATTEMPTS = 5;
const READ_BYTES = 1 << 20;

/** @throws {OatmillError} hub_unavailable (also for a wrong hash), source_not_found, storage_failed, cancelled */
export async function download(client: HubClient, file: HubFile, options: DownloadOptions): Promise<void> {
  const path = join(options.folder, file.name), part = `${path}.${file.hash.hex.slice(0, 16)}.part`;
  try {
    if (await hashesRight(path, file)) return options.onBytes(file.bytes);
    await Deno.mkdir(dirname(path), { recursive: true });
    await fill(client, file, { ...options, part });
    if (!await hashesRight(part, file)) {
      await Deno.remove(part);
      throw unavailable(`the hash of "${file.name}" differs: it was damaged on its way; pull again`);
    }
    await Deno.rename(part, path);
  } catch (error) {
    throw asStorageError(error, "store a file of the hub");
  }
}

/** Appends to the part until it is whole. */
async function fill(
  client: HubClient,
  file: HubFile,
  { part, commit, retryMs, onBytes }: DownloadOptions & { readonly part: string },
): Promise<void> {
  using target = await Deno.open(part, { write: true, create: true });
  let have = (await target.stat()).size;
  if (have > file.bytes) await target.truncate(have = 0);
  await target.seek(have, Deno.SeekMode.Start);
  for (let failures = 0; have < file.bytes;) {
    const before = have;
    try {
      for await (const chunk of await client.open(file, commit, have)) {
        if (have + chunk.length > file.bytes) throw unavailable(`"${file.name}" is longer than the hub says`);
        for (let done = 0; done < chunk.length;) done += await target.write(chunk.subarray(done));
        onBytes(have += chunk.length);
      }
      if (have < file.bytes) throw unavailable(`"${file.name}" ends at byte ${have} of ${file.bytes}`);
    } catch (error) {
      failures = have > before ? 1 : failures + 1;
      const passing = error instanceof Error && "code" in error && error.code === "hub_unavailable";
      if (!passing || failures >= MAX_ATTEMPTS) throw error;
      await new Promise((done) => setTimeout(done, retryMs * 2 ** (failures - 1)));
    }
  }
  await target.sync();
}

async function hashesRight(path: string, { bytes, hash }: HubFile): Promise<boolean> {
  const info = await Deno.stat(path).catch(() => null);
  if (!info?.isFile || info.size !== bytes) return false;
  // git's name for a file: SHA-1 of "blob SIZE\0" and the content
  const digest: Hash = hash.kind === "sha256"
    ? createHash("sha256")
    : createHash("sha1").update(`blob ${bytes}\0`);
  using file = await Deno.open(path);
  const piece = new Uint8Array(READ_BYTES);
  for (let n = await file.read(piece); n !== null; n = await file.read(piece)) {
    digest.update(piece.subarray(0, n));
  }
  return digest.digest("hex") === hash.hex;
}
