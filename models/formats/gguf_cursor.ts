/** Reads little-endian values from the start of a GGUF file, with every length checked against the file. */
import { OatmillError } from "../../errors.ts";

/** The header goes on beyond the bytes at hand; read more and start again. */
export class NeedMoreBytes extends Error {
  constructor(readonly bytes: number) {
    super(`The header needs ${bytes} bytes`);
  }
}

/** Vocabularies make headers of up to 15 MB; beyond this lies a mistake or an attack. */
export const MAX_HEADER_BYTES = 256 * 1024 * 1024;

/** Reads on through the bytes at hand; the file's true size bounds every length. */
export class GgufCursor {
  position = 0;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  constructor(readonly prefix: Uint8Array, readonly fileBytes: number, readonly file: string) {}

  error(why: string): OatmillError {
    return new OatmillError("invalid_checkpoint", `Cannot read "${this.file}": ${why}`);
  }

  take(length: number): Uint8Array {
    const end = this.position + length;
    if (end > this.fileBytes) throw this.error(`the header is truncated at byte ${this.fileBytes}`);
    if (end > MAX_HEADER_BYTES) {
      throw this.error(`the header is longer than the limit of ${MAX_HEADER_BYTES} bytes`);
    }
    if (end > this.prefix.length) throw new NeedMoreBytes(end);
    const bytes = this.prefix.subarray(this.position, end);
    this.position = end;
    return bytes;
  }

  view(length: number): DataView {
    const bytes = this.take(length);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  u32(): number {
    return this.view(4).getUint32(0, true);
  }

  u64(): bigint {
    return this.view(8).getBigUint64(0, true);
  }

  /** A number of things of at least `bytesEach` bytes, which must fit into what is left of the file. */
  count(what: string, bytesEach: number): number {
    const count = this.u64();
    if (count > BigInt(Math.floor((this.fileBytes - this.position) / bytesEach))) {
      throw this.error(`${what} ${count} does not fit into the file, it is truncated or broken`);
    }
    return Number(count);
  }

  string(maxBytes = Infinity): string {
    const length = this.count("string length", 1);
    if (length > maxBytes) {
      throw this.error(`a name of ${length} bytes is too long, the limit is ${maxBytes}`);
    }
    return this.text(length);
  }

  text(length: number): string {
    const bytes = this.take(length);
    try {
      return this.#decoder.decode(bytes);
    } catch {
      throw this.error(`text at byte ${this.position - length} is not valid UTF-8 (a key or a token)`);
    }
  }
}
