/** The hub's API through `@huggingface/hub`: the only file that knows it. */
import { fileDownloadInfo, HubApiError, listFiles, modelInfo } from "@huggingface/hub";
import { OatmillError } from "../errors.ts";
import type { HubAccess } from "./reference.ts";

export interface HubFile {
  readonly name: string;
  readonly bytes: number;
  /** SHA-256 of the content, or git's SHA-1 of a file that git itself keeps. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly hex: string };
}

const MAX_JSON_BYTES = 32 * 2 ** 20;
const MAX_ENTRIES = 10_000;
/** Embedding models say in a file of this folder how they pool. */
const POOLING_FOLDER = "1_Pooling";
/** For an answer to begin, and for each further piece of a body. */
const PATIENCE_MS = 60_000;
const LARGE_HASH = /^[0-9a-f]{64}$/, GIT_HASH = /^[0-9a-f]{40}$/;

export class HubClient {
  readonly #access: HubAccess;
  readonly #repo: string;
  readonly #signal: AbortSignal | undefined;
  readonly #origin: string;

  /** @throws {OatmillError} invalid_request when the hub's URL is none */
  constructor(access: HubAccess, repo: string, signal?: AbortSignal) {
    this.#access = { ...access, url: access.url.replace(/\/+$/, "") };
    this.#repo = repo;
    this.#signal = signal;
    const url = URL.parse(access.url);
    if (!url || !["http:", "https:"].includes(url.protocol)) {
      throw new OatmillError("invalid_request", `Cannot pull from "${access.url}": must be an http(s) URL`);
    }
    this.#origin = url.origin;
  }

  /** The commit that a branch or a tag names now. */
  async commit(revision: string): Promise<string> {
    const { sha } = await this.#ask(() =>
      modelInfo({ ...this.#options(), name: this.#repo, revision, additionalFields: ["sha"] })
    );
    if (typeof sha === "string" && GIT_HASH.test(sha)) return sha;
    throw unavailable(`${this.#access.url} names no commit of "${this.#repo}"`);
  }

  /** Files of the repository's top folder and of `1_Pooling`; those with names or hashes of other forms are left out. */
  async files(commit: string): Promise<HubFile[]> {
    const top = await this.#folder(commit);
    return top.pools ? [...top.files, ...(await this.#folder(commit, POOLING_FOLDER)).files] : top.files;
  }

  async #folder(
    commit: string,
    folder?: string,
  ): Promise<{ readonly files: HubFile[]; readonly pools: boolean }> {
    return await this.#ask(async () => {
      const files: HubFile[] = [];
      let entries = 0, pools = false;
      const repo = { type: "model", name: this.#repo } as const;
      const options = { ...this.#options(), repo, revision: commit, ...folder ? { path: folder } : {} };
      for await (const { type, path, size, oid, lfs } of listFiles(options)) {
        if (++entries > MAX_ENTRIES) throw unavailable(`"${this.#repo}" has more than ${MAX_ENTRIES} files`);
        if (type === "directory" && path === POOLING_FOLDER) pools = true;
        const bytes = lfs?.size ?? size, hex = lfs?.oid ?? oid;
        const form = lfs ? LARGE_HASH : GIT_HASH;
        if (type !== "file" || !Number.isSafeInteger(bytes) || bytes < 0 || !form.test(hex ?? "")) continue;
        files.push({ name: path, bytes, hash: { kind: lfs ? "sha256" : "git", hex: hex! } });
      }
      return { files, pools };
    });
  }

  /** Opens a file's content from byte `from` on. */
  async open(
    { name, bytes, hash }: HubFile,
    commit: string,
    from: number,
  ): Promise<AsyncIterable<Uint8Array>> {
    return await this.#ask(async () => {
      const repo = { type: "model", name: this.#repo } as const;
      const info = await fileDownloadInfo({ ...this.#options(), repo, path: name, revision: commit });
      if (!info) throw missing(`"${this.#repo}" has no file "${name}"`);
      const etag = info.etag.replace(/^W\//, "").replaceAll('"', "");
      if (info.size !== bytes || etag !== hash.hex) {
        throw unavailable(
          `the hub lists "${name}" otherwise than it serves it (${info.size} bytes, ${etag})`,
        );
      }
      if (from === bytes) return emptyBody();
      const response = await this.#fetch(info.url, {
        headers: { range: `bytes=${from}-${bytes - 1}`, ...this.#authorization() },
      });
      const range = response.headers.get("content-range") ?? "";
      const whole = response.status === 200 && from === 0;
      if (response.body && (whole || (response.status === 206 && range.startsWith(`bytes ${from}-`)))) {
        return patient(response.body);
      }
      await response.body?.cancel();
      throw unavailable(
        `${new URL(info.url).host} answers with status ${response.status} to a range of "${name}"`,
      );
    });
  }

  #options() {
    const { url, token } = this.#access;
    return { hubUrl: url, fetch: this.#fetch, ...token ? { accessToken: token } : {} };
  }

  #authorization(): Record<string, string> {
    return this.#access.token ? { authorization: `Bearer ${this.#access.token}` } : {};
  }

  /** Patience, an end to JSON that has none, and no token for a stranger that a page link or a download names. */
  readonly #fetch: typeof fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init?.headers);
    if (url.origin !== this.#origin) headers.delete("authorization");
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error("no answer")), PATIENCE_MS);
    try {
      const signal = AbortSignal.any([late.signal, ...this.#signal ? [this.#signal] : []]);
      const response = await fetch(url, { ...init, headers, signal });
      // Of a question about a file only the headers are read: the library leaves the body where it is.
      if (response.ok && headers.get("accept")?.includes("xet-fileinfo")) {
        await response.body?.cancel();
        return withUrl(new Response(null, { status: 200, headers: response.headers }), response.url);
      }
      const isJson = response.headers.get("content-type")?.startsWith("application/json");
      if (response.ok && !isJson) return response;
      const body = response.body?.pipeThrough(atMost(MAX_JSON_BYTES)) ?? null;
      return withUrl(new Response(body, response), response.url);
    } finally {
      clearTimeout(timer);
    }
  };

  /** @throws {OatmillError} source_not_found, hub_unavailable, cancelled */
  async #ask<T>(question: () => Promise<T>): Promise<T> {
    try {
      return await question();
    } catch (error) {
      throw this.#explained(error);
    }
  }

  #explained(error: unknown): OatmillError {
    if (error instanceof OatmillError) return error;
    if (this.#signal?.aborted) return new OatmillError("cancelled", "Pulling was cancelled");
    const { url, token } = this.#access, cause = { cause: error };
    if (error instanceof HubApiError) {
      const { statusCode } = error;
      if ([401, 403].includes(statusCode)) {
        const way = token
          ? "the token in HF_TOKEN may not read it"
          : "if it is private or gated, set HF_TOKEN";
        return missing(
          `${url} does not give "${this.#repo}" (status ${statusCode}): check its name, ${way}`,
          cause,
        );
      }
      if (statusCode === 404) {
        return missing(`${url} has no such model or revision of "${this.#repo}"`, cause);
      }
      return unavailable(`${url} answers with status ${statusCode}`, cause);
    }
    if (error instanceof Deno.errors.NotCapable) {
      return unavailable(`${error.message.split(", run again")[0]}: add the host to --allow-net`, cause);
    }
    return unavailable(`${url}: ${error instanceof Error ? error.message : String(error)}`, cause);
  }
}

const withUrl = (response: Response, url: string): Response =>
  Object.defineProperty(response, "url", { value: url });

async function* emptyBody(): AsyncGenerator<Uint8Array> {}

/** @throws {OatmillError} hub_unavailable when nothing comes for too long, or the connection drops */
async function* patient(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  try {
    while (true) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error("nothing came for a minute")), PATIENCE_MS);
      });
      const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } catch (cause) {
    throw unavailable(`the connection dropped: ${(cause as Error).message}`, { cause });
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function atMost(maxBytes: number): TransformStream<Uint8Array, Uint8Array> {
  let bytes = 0;
  return new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.length;
      if (bytes > maxBytes) controller.error(unavailable(`its answer is longer than ${maxBytes} bytes`));
      else controller.enqueue(chunk);
    },
  });
}

export const unavailable = (why: string, options?: ErrorOptions): OatmillError =>
  new OatmillError("hub_unavailable", `Cannot pull from the hub: ${why}`, null, options);

export const missing = (why: string, options?: ErrorOptions): OatmillError =>
  new OatmillError("source_not_found", `Cannot pull the model: ${why}`, null, options);
