/**
 * Memory and disk for what a compression keeps from one pass to the next: memory up to a limit, then files in a folder
 * beside the artifact. The folder is made when it is first needed and removed with everything in it when the
 * compression ends, however it ends.
 */
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { shared } from "./statistics.ts";

/** Values in memory that threads share, or the path of a file with them: both can be sent to a worker. */
export type Place = Float32Array<SharedArrayBuffer> | string;

/** Most that is kept in memory when nothing is said: a quarter of the machine's, at most this. */
const DEFAULT_BYTES = 1 << 30;

export class WorkSpace implements Disposable {
  readonly #folder: string;
  readonly #memoryBytes: number;
  #usedBytes = 0;
  #made = false;

  private constructor(folder: string, memoryBytes: number) {
    this.#folder = folder;
    this.#memoryBytes = memoryBytes;
  }

  /** @param folder to make when memory is used up; what a crash left there goes */
  static open(folder: string, memoryBytes = defaultBytes()): WorkSpace {
    removeFolder(folder);
    return new WorkSpace(folder, memoryBytes);
  }

  /** Bytes that stand in memory. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Where `length` values can be kept: in memory as long as the limit allows, else in a file of that name.
   * @throws {OatmillError} storage_failed
   */
  place(name: string, length: number): Place {
    const bytes = 4 * length;
    if (this.#usedBytes + bytes > this.#memoryBytes) return this.file(name);
    this.#usedBytes += bytes;
    return shared(length);
  }

  /** Path of a file in the folder. @throws {OatmillError} storage_failed when the folder cannot be made */
  file(name: string): string {
    if (!this.#made) {
      asWorkError(this.#folder, () => Deno.mkdirSync(this.#folder, { recursive: true, mode: 0o700 }));
    }
    this.#made = true;
    return join(this.#folder, name);
  }

  [Symbol.dispose](): void {
    if (!this.#made) return;
    this.#made = false;
    removeFolder(this.#folder);
  }
}

function removeFolder(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function defaultBytes(): number {
  const known = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" }).state === "granted";
  return known ? Math.min(DEFAULT_BYTES, Deno.systemMemoryInfo().total / 4) : DEFAULT_BYTES;
}

/** The values of a {@linkcode Place}. */
export interface StoredValues extends Disposable {
  /** Writes `values` from value `at` on. @throws {OatmillError} storage_failed: the disk is full */
  write(at: number, values: Float32Array): void;
  /** Fills `out` with the values from `at` on. @throws {OatmillError} storage_failed: the file ends before */
  read(at: number, out: Float32Array): void;
}

/** Opens a place, in any thread; several may use it at once. */
export function openValues(place: Place): StoredValues {
  return typeof place === "string" ? ScratchFile.open(place) : new SharedValues(place);
}

class SharedValues implements StoredValues {
  constructor(readonly values: Float32Array) {}

  write(at: number, values: Float32Array): void {
    this.values.set(values, at);
  }

  read(at: number, out: Float32Array): void {
    out.set(this.values.subarray(at, at + out.length));
  }

  [Symbol.dispose](): void {}
}

class ScratchFile implements StoredValues {
  readonly #file: Deno.FsFile;

  private constructor(readonly path: string, file: Deno.FsFile) {
    this.#file = file;
  }

  static open(path: string): ScratchFile {
    const options = { read: true, write: true, create: true, mode: 0o600 };
    return new ScratchFile(path, asWorkError(path, () => Deno.openSync(path, options)));
  }

  write(at: number, values: Float32Array): void {
    asWorkError(this.path, () => {
      this.#file.seekSync(4 * at, Deno.SeekMode.Start);
      for (const part of pieces(values)) {
        const bytes = new Uint8Array(new Float32Array(part).buffer);
        for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      }
    });
  }

  read(at: number, out: Float32Array): void {
    asWorkError(this.path, () => {
      this.#file.seekSync(4 * at, Deno.SeekMode.Start);
      for (const part of pieces(out)) {
        const values = new Float32Array(part.length), bytes = new Uint8Array(values.buffer);
        for (let done = 0; done < bytes.length;) {
          const n = this.#file.readSync(bytes.subarray(done));
          if (n === null) throw new Error(`it ends before value ${at + out.length}`);
          done += n;
        }
        part.set(values);
      }
    });
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Values copied at once, 4 MiB: files take no shared memory. */
export const PIECE = 1 << 20;

function* pieces(values: Float32Array): Generator<Float32Array> {
  for (let at = 0; at < values.length; at += PIECE) yield values.subarray(at, at + PIECE);
}

/** Says of a file or folder that it was the trouble. @throws {OatmillError} storage_failed */
export function asWorkError<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof OatmillError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OatmillError("storage_failed", `Cannot use temporary file "${path}": ${why}`, null, { cause });
  }
}
