/**
 * Where a compression keeps what does not fit in memory: a folder beside the artifact, made when it is first needed and
 * removed with everything in it when the compression ends, however it ends. Any thread.
 */
import { basename, dirname, join } from "node:path";
import { OatmillError } from "../errors.ts";

export class WorkFolder implements Disposable {
  readonly #path: string;
  #made = false;

  private constructor(path: string) {
    this.#path = path;
  }

  /** @param artifact the folder that the compression makes; the disk that takes it takes this as well */
  static beside(artifact: string): WorkFolder {
    return new WorkFolder(join(dirname(artifact), `.${basename(artifact)}.${crypto.randomUUID()}.work`));
  }

  /** Path of a file in the folder. @throws {OatmillError} storage_failed when the folder cannot be made */
  file(name: string): string {
    if (!this.#made) storage(this.#path, () => Deno.mkdirSync(this.#path, { recursive: true, mode: 0o700 }));
    this.#made = true;
    return join(this.#path, name);
  }

  [Symbol.dispose](): void {
    if (!this.#made) return;
    this.#made = false;
    try {
      Deno.removeSync(this.#path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** A file of f32 values in a work folder, read and written at any place. Values in shared memory are copied in pieces. */
export class ScratchFile implements Disposable {
  readonly #file: Deno.FsFile;

  private constructor(readonly path: string, file: Deno.FsFile) {
    this.#file = file;
  }

  /** Opens a file, or makes it. Several threads may have it open. @throws {OatmillError} storage_failed */
  static open(path: string): ScratchFile {
    const options = { read: true, write: true, create: true, mode: 0o600 };
    return new ScratchFile(path, storage(path, () => Deno.openSync(path, options)));
  }

  /** Writes `values` from value `at` of the file on. @throws {OatmillError} storage_failed: the disk is full */
  write(at: number, values: Float32Array): void {
    storage(this.path, () => {
      this.#file.seekSync(4 * at, Deno.SeekMode.Start);
      for (const part of pieces(values)) {
        const bytes = new Uint8Array(new Float32Array(part).buffer);
        for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
      }
    });
  }

  /** Fills `out` with the values from `at` on. @throws {OatmillError} storage_failed: the file ends before */
  read(at: number, out: Float32Array): void {
    storage(this.path, () => {
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

/** Values copied at once: 4 MiB. */
const PIECE = 1 << 20;

function* pieces(values: Float32Array): Generator<Float32Array> {
  for (let at = 0; at < values.length; at += PIECE) yield values.subarray(at, at + PIECE);
}

function storage<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new OatmillError("storage_failed", `Cannot use temporary file "${path}": ${why}`, null, { cause });
  }
}
