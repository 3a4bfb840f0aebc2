/** Reads byte ranges of one regular file; calls may overlap. Knows nothing of formats. */
import { OatmillError } from "../../errors.ts";

export class RandomAccessFile implements Disposable {
  readonly #file: Deno.FsFile;
  /** Ends when the reads asked for so far are done: Deno has no pread, so seek and read must not interleave. */
  #tail: Promise<unknown> = Promise.resolve();

  private constructor(readonly path: string, readonly sizeBytes: number, file: Deno.FsFile) {
    this.#file = file;
  }

  /** @throws {OatmillError} invalid_checkpoint when there is no such regular file (a FIFO would hang, a device never ends) */
  static async open(path: string): Promise<RandomAccessFile> {
    let info: Deno.FileInfo;
    try {
      info = await Deno.stat(path);
    } catch (cause) {
      if (!(cause instanceof Deno.errors.NotFound)) throw cause;
      throw new OatmillError("invalid_checkpoint", `Cannot open "${path}": the file is missing`, null, {
        cause,
      });
    }
    if (!info.isFile) {
      throw new OatmillError("invalid_checkpoint", `Cannot open "${path}": it must be a regular file`);
    }
    return new RandomAccessFile(path, info.size, await Deno.open(path, { read: true }));
  }

  /**
   * Fills `out` with the bytes from `offset` on.
   * @throws {OatmillError} invalid_checkpoint when the file ends before
   */
  readInto(offset: number, out: Uint8Array): Promise<void> {
    const done = this.#tail.then(() => this.#fill(offset, out));
    this.#tail = done.catch(() => {});
    return done;
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#requireRange(offset, length); // before allocating
    const out = new Uint8Array(length);
    await this.readInto(offset, out);
    return out;
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #fill(offset: number, out: Uint8Array): Promise<void> {
    this.#requireRange(offset, out.length);
    await this.#file.seek(offset, Deno.SeekMode.Start);
    for (let filled = 0; filled < out.length;) {
      const n = await this.#file.read(out.subarray(filled));
      if (n === null) this.#requireRange(offset, Infinity); // it shrank since it was opened
      else filled += n;
    }
  }

  #requireRange(offset: number, length: number): void {
    if (offset + length <= this.sizeBytes) return;
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read "${this.path}": it is truncated at byte ${this.sizeBytes}, must reach ${offset + length}`,
    );
  }
}
