/**
 * Content by its SHA-256: `blobs/<first two>/<sha256>`, main thread only. A blob is there whole or not at all: it is
 * written and fsynced in `tmp/`, renamed, and its folder fsynced. It stays while a row names it or a caller pins it; there
 * is no counter beside the rows that could drift.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { OatmillError } from "../errors.ts";
import { storing, syncFolder } from "./data_folder.ts";

export interface BlobContent {
  readonly bytes: number;
  /** 64 hexadecimal digits. */
  readonly sha256: string;
}

/** Half-open: `[start, end)` in bytes. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** What one read takes: 1.2 GB/s are hashed by it, and a request in between waits a fifth of a millisecond. */
const CHUNK_BYTES = 256 * 1024;

export class BlobStore {
  readonly #pins = new Map<string, number>();
  readonly #root: string;
  readonly #referenced: (sha256: string) => boolean;

  /** @param referenced whether a row names the blob */
  constructor(root: string, referenced: (sha256: string) => boolean) {
    this.#root = root;
    this.#referenced = referenced;
  }

  path(sha256: string): string {
    return join(this.#root, sha256.slice(0, 2), sha256);
  }

  /**
   * Takes over a finished, fsynced file with this content. It replaces one that is there already: what was just hashed
   * is whole, what lay on the disk may not be.
   * @returns a pin: the caller names the blob in a row before it lets go
   * @throws {OatmillError} storage_failed
   */
  async adopt(path: string, sha256: string): Promise<Disposable> {
    const target = this.path(sha256), folder = dirname(target);
    const pin = this.pin(sha256);
    try {
      await storing("store the content", async () => {
        await Deno.mkdir(folder, { recursive: true });
        await Deno.rename(path, target);
        await syncFolder(folder);
        await syncFolder(this.#root);
      });
      return pin;
    } catch (error) {
      pin[Symbol.dispose]();
      throw error;
    }
  }
  /** The blob stays until this is disposed of, whether a row names it or not. */
  pin(sha256: string): Disposable {
    this.#pins.set(sha256, (this.#pins.get(sha256) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = this.#pins.get(sha256)! - 1;
        if (left > 0) this.#pins.set(sha256, left);
        else this.#pins.delete(sha256);
        this.collect(sha256);
      },
    };
  }
  /** Deletes the blob unless a row names it or a caller pins it. At once: nothing can come to need it meanwhile. */
  collect(sha256: string): void {
    if (this.#pins.has(sha256) || this.#referenced(sha256)) return;
    try {
      Deno.removeSync(this.path(sha256));
    } catch {
      // Not there, or a disk that refuses: the next start finds it.
    }
  }
  /** Deletes what no row names (a crash between rename and row). Before anything else uses the store. */
  async sweep(): Promise<string[]> {
    const removed: string[] = [];
    for await (const folder of Deno.readDir(this.#root)) {
      if (!folder.isDirectory) continue;
      for await (const { name } of Deno.readDir(join(this.#root, folder.name))) {
        if (this.#referenced(name)) continue;
        await Deno.remove(join(this.#root, folder.name, name), { recursive: true });
        removed.push(name);
      }
    }
    return removed;
  }
}

/**
 * The bytes of a file that must have this content. A whole read is checked against the hash before its last chunk is
 * given: nobody gets all of a damaged file.
 * @throws {OatmillError} damaged_file
 */
export async function* readContent(
  path: string,
  content: BlobContent,
  range: ByteRange = { start: 0, end: content.bytes },
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using file = await openContent(path, content);
  const hash = range.start === 0 && range.end === content.bytes ? createHash("sha256") : null;
  await file.seek(range.start, Deno.SeekMode.Start);
  for (let left = range.end - range.start; left > 0;) {
    const buffer = new Uint8Array(Math.min(left, CHUNK_BYTES));
    const read = await file.read(buffer);
    if (read === null) throw damaged(`it ends ${left} bytes early`);
    const chunk = buffer.subarray(0, read);
    left -= read;
    hash?.update(chunk);
    if (left === 0 && hash && hash.digest("hex") !== content.sha256) throw damaged("its SHA-256 differs");
    yield chunk;
  }
}

/** Reads all of it. @throws {OatmillError} damaged_file */
export async function checkContent(path: string, content: BlobContent): Promise<void> {
  for await (const _ of readContent(path, content));
}

async function openContent(path: string, { bytes }: BlobContent): Promise<Deno.FsFile> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw damaged("it is not there");
    throw error;
  }
  const { size } = await file.stat();
  if (size === bytes) return file;
  file.close();
  throw damaged(`it has ${size} bytes, must have ${bytes}`);
}

const damaged = (what: string) =>
  new OatmillError("damaged_file", `The stored content is damaged: ${what}; upload it again`);
