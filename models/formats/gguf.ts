/** An open GGUF file: metadata at hand, tensors read and dequantised one by one. */
import { basename } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { TensorInfo, TensorSource } from "../tensor_source.ts";
import { MAX_HEADER_BYTES, NeedMoreBytes } from "./gguf_cursor.ts";
import { type GgufHeader, type GgufTensor, parseGgufHeader } from "./gguf_header.ts";
import type { GgufValue } from "./gguf_value.ts";
import { RandomAccessFile } from "./random_access_file.ts";

/** First read; most headers without a large vocabulary fit. */
const FIRST_READ_BYTES = 1024 * 1024;
/** About the bytes dequantised at a time. */
const PIECE_BYTES = 4 * 1024 * 1024;

export class GgufFile implements TensorSource, Disposable {
  readonly format = "gguf";
  readonly name: string;
  readonly tensorBytes: number;
  readonly #file: RandomAccessFile;
  readonly #header: GgufHeader;

  private constructor(file: RandomAccessFile, header: GgufHeader) {
    this.#file = file;
    this.#header = header;
    this.name = basename(file.path);
    this.tensorBytes = header.tensors.values().reduce((sum, tensor) => sum + tensor.bytes, 0);
  }

  /** @throws {OatmillError} invalid_checkpoint, unsupported_format */
  static async open(path: string): Promise<GgufFile> {
    const file = await RandomAccessFile.open(path);
    try {
      return new GgufFile(file, await readHeader(file));
    } catch (error) {
      file.close();
      throw error;
    }
  }

  get metadata(): ReadonlyMap<string, GgufValue> {
    return this.#header.metadata;
  }

  names(): readonly string[] {
    return [...this.#header.tensors.keys()];
  }

  info(name: string): TensorInfo | undefined {
    const tensor = this.#header.tensors.get(name);
    return tensor && { shape: tensor.shape, type: tensor.type.name, file: this.name };
  }

  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const tensor = this.#tensor(name);
    const { type, bytes } = tensor;
    const { blockElements, blockBytes, dequantize } = type;
    if (!dequantize) {
      throw new OatmillError(
        "unsupported_format",
        `Cannot read tensor "${name}" of "${this.name}": type ${type.name} is unsupported`,
      );
    }
    if (
      first % blockElements !== 0 || count % blockElements !== 0 ||
      (first + count) / blockElements * blockBytes > bytes
    ) {
      throw new RangeError(`Elements ${first} to ${first + count} are no whole blocks of tensor "${name}"`);
    }
    const out = new Float32Array(count);
    const pieceElements = Math.ceil(PIECE_BYTES / blockBytes) * blockElements;
    for (let done = 0; done < count; done += pieceElements) {
      const n = Math.min(pieceElements, count - done);
      const offset = tensor.offset + (first + done) / blockElements * blockBytes;
      dequantize(await this.#file.read(offset, n / blockElements * blockBytes), out.subarray(done, done + n));
    }
    return out;
  }

  close(): void {
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #tensor(name: string): GgufTensor {
    const tensor = this.#header.tensors.get(name);
    if (!tensor) {
      throw new OatmillError(
        "invalid_checkpoint",
        `Cannot read tensor "${name}": it is missing in "${this.name}"`,
      );
    }
    return tensor;
  }
}

/** Parses a prefix and doubles it until the header fits: the parser stays free of I/O, and little is read twice. */
async function readHeader(file: RandomAccessFile): Promise<GgufHeader> {
  const longest = Math.min(file.sizeBytes, MAX_HEADER_BYTES);
  for (let length = Math.min(FIRST_READ_BYTES, longest);;) {
    try {
      return parseGgufHeader(await file.read(0, length), file.sizeBytes, basename(file.path));
    } catch (error) {
      if (!(error instanceof NeedMoreBytes)) throw error;
      length = Math.min(longest, Math.max(2 * length, error.bytes));
    }
  }
}
