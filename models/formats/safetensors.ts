/** Reads one safetensors file tensor by tensor, never the whole file at once. */
import { basename } from "node:path";
import { OatmillError } from "../../errors.ts";
import { RandomAccessFile } from "./random_access_file.ts";
import {
  headerLength,
  LENGTH_BYTES,
  parseSafetensorsHeader,
  type SafetensorsEntry,
} from "./safetensors_header.ts";
import { widenBfloat16, widenFloat16, widenFloat64, widenFloat8E4M3, widenFloat8E5M2 } from "./widen.ts";

export { type SafetensorsEntry, safetensorsHeader } from "./safetensors_header.ts";

/** Bytes read at a time while widening, a multiple of every element size. */
const PIECE_BYTES = 4 * 1024 * 1024;

type Widen = (source: Uint8Array<ArrayBuffer>, out: Float32Array) => void;
const READABLE: Readonly<Record<string, { readonly bytes: number; readonly widen: Widen }>> = {
  F32: {
    bytes: 4,
    widen: (source, out) => out.set(new Float32Array(source.buffer, source.byteOffset, out.length)),
  },
  F16: { bytes: 2, widen: widenFloat16 },
  BF16: { bytes: 2, widen: widenBfloat16 },
  F64: { bytes: 8, widen: widenFloat64 },
  F8_E4M3: { bytes: 1, widen: widenFloat8E4M3 },
  F8_E5M2: { bytes: 1, widen: widenFloat8E5M2 },
};

/** One open safetensors file. */
export class SafetensorsFile implements Disposable {
  readonly name: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Where the data section starts, from the start of the file. */
  readonly dataOffset: number;
  readonly #file: RandomAccessFile;

  private constructor(file: RandomAccessFile, dataOffset: number, entries: readonly SafetensorsEntry[]) {
    this.#file = file;
    this.name = basename(file.path);
    this.dataOffset = dataOffset;
    this.entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  /** @throws {OatmillError} invalid_checkpoint, unsupported_format */
  static async open(path: string): Promise<SafetensorsFile> {
    const file = await RandomAccessFile.open(path);
    try {
      const name = basename(path);
      const prefix = await file.read(0, Math.min(LENGTH_BYTES, file.sizeBytes));
      const length = headerLength(prefix, file.sizeBytes, name);
      const json = await file.read(LENGTH_BYTES, length);
      const dataOffset = LENGTH_BYTES + length;
      return new SafetensorsFile(
        file,
        dataOffset,
        parseSafetensorsHeader(json, file.sizeBytes - dataOffset, name),
      );
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Bytes of all tensors. */
  get tensorBytes(): number {
    return this.#file.sizeBytes - this.dataOffset;
  }

  /** The stored bytes of a tensor, from its byte `first` on, into `out`. */
  async readBytes(name: string, out: Uint8Array, first = 0): Promise<void> {
    await this.#file.readInto(this.dataOffset + this.#entry(name).begin + first, out);
  }

  /** Elements `first` to `first + count - 1` as float32; the float types only. */
  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const entry = this.#entry(name);
    if (!Object.hasOwn(READABLE, entry.dtype)) {
      throw new OatmillError(
        "unsupported_format",
        `Cannot read tensor "${name}" of "${this.name}": its dtype is ${entry.dtype}, supported are ${
          Object.keys(READABLE).join(", ")
        }`,
      );
    }
    const { bytes, widen } = READABLE[entry.dtype];
    if (first < 0 || count < 0 || (first + count) * bytes > entry.end - entry.begin) {
      throw new RangeError(`Elements ${first} to ${first + count} lie outside tensor "${name}"`);
    }
    const out = new Float32Array(count);
    const piece = new Uint8Array(Math.min(PIECE_BYTES, count * bytes));
    for (let done = 0; done < count;) {
      const n = Math.min(piece.length / bytes, count - done);
      const source = piece.subarray(0, n * bytes);
      await this.readBytes(name, source, (first + done) * bytes);
      widen(source, out.subarray(done, done + n));
      done += n;
    }
    return out;
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot read tensor "${name}": it is missing in "${this.name}"`,
    );
  }
}
