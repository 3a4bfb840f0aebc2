/**
 * The GGUF header, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, counts, metadata,
 * tensor infos. Every count and length is checked against the file's size before anything is allocated for it.
 */
import { OatmillError } from "../../errors.ts";
import { GGML_TYPES, type GgmlType } from "./gguf_types.ts";

/** Numbers beyond 2^53 stay bigint. Arrays of numbers are typed arrays where one fits. */
export type GgufValue = string | number | bigint | boolean | GgufArray;
export type GgufArray =
  | readonly string[]
  | readonly boolean[]
  | readonly (number | bigint)[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  /** Outermost first, as everywhere in Oatmill: the reverse of the file's order. */
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** The header goes on beyond the bytes at hand; read more and start again. */
export class NeedMoreBytes extends Error {
  constructor(readonly bytes: number) {
    super(`The header needs ${bytes} bytes`);
  }
}

/** Vocabularies make headers of up to 15 MB; beyond this lies a mistake or an attack. */
export const MAX_HEADER_BYTES = 256 * 1024 * 1024;
const MAX_NAME_BYTES = 1024;
const MAX_DIMS = 4;
/** Least bytes of an entry: key length, type, value; name length, dims, one dim, type, offset. */
const MIN_ENTRY_BYTES = 13, MIN_TENSOR_BYTES = 32;

/**
 * @param prefix the file's first bytes
 * @param fileBytes size of the whole file
 * @param file its name, for messages
 * @throws {NeedMoreBytes} when the header is longer than `prefix` and the file
 * @throws {OatmillError} invalid_checkpoint, unsupported_format
 */
export function parseGgufHeader(prefix: Uint8Array, fileBytes: number, file: string): GgufHeader {
  const cursor = new Cursor(prefix, fileBytes, file);
  if (fileBytes < 4 || cursor.text(4) !== "GGUF") throw cursor.error("the magic is not GGUF");
  const version = cursor.u32();
  if (version !== 2 && version !== 3) {
    const bigEndian = (version & 0xffff) === 0;
    throw cursor.error(
      `version ${version} is unsupported${
        bigEndian && version ? " (a big-endian file?)" : ""
      }, wanted 2 or 3`,
    );
  }
  const tensorCount = cursor.count("tensor count", MIN_TENSOR_BYTES);
  const entryCount = cursor.count("metadata count", MIN_ENTRY_BYTES);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < entryCount; i++) {
    const key = cursor.string(MAX_NAME_BYTES);
    if (metadata.has(key)) throw cursor.error(`metadata key ${quote(key)} is duplicate`);
    metadata.set(key, readValue(cursor, cursor.u32()));
  }
  const infos = Array.from({ length: tensorCount }, () => readTensorInfo(cursor));
  const alignment = readAlignment(cursor, metadata);
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  return { version, metadata, tensors: placeTensors(cursor, infos, dataStart, alignment) };
}

interface TensorInfo {
  readonly name: string;
  readonly dims: readonly number[];
  readonly type: GgmlType;
  readonly offset: bigint;
}

function readTensorInfo(cursor: Cursor): TensorInfo {
  const name = cursor.string(MAX_NAME_BYTES);
  const dimCount = cursor.u32();
  if (dimCount < 1 || dimCount > MAX_DIMS) {
    throw cursor.error(`tensor ${quote(name)} has ${dimCount} dimensions, must be 1 to ${MAX_DIMS}`);
  }
  const dims = Array.from({ length: dimCount }, () => {
    const dim = cursor.u64();
    if (dim < 1n || dim > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw cursor.error(`tensor ${quote(name)} has a dim of size ${dim}`);
    }
    return Number(dim);
  });
  const typeId = cursor.u32();
  const type = GGML_TYPES.get(typeId);
  if (!type) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot read tensor ${quote(name)} of "${cursor.file}": unknown tensor type ${typeId}`,
    );
  }
  if (dims[0] % type.blockElements !== 0) {
    throw cursor.error(
      `tensor ${quote(name)} has rows of size ${
        dims[0]
      }, not a multiple of the ${type.name} block of ${type.blockElements}`,
    );
  }
  return { name, dims, type, offset: cursor.u64() };
}

function placeTensors(
  cursor: Cursor,
  infos: readonly TensorInfo[],
  dataStart: number,
  alignment: number,
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const { name, dims, type, offset } of infos) {
    if (tensors.has(name)) throw cursor.error(`tensor name ${quote(name)} is duplicate`);
    // Doubles do not wrap: a product beyond the file's size stays beyond it.
    const bytes = dims.reduce((product, n) => product * n, 1) / type.blockElements * type.blockBytes;
    if (offset % BigInt(alignment) !== 0n) {
      throw cursor.error(`tensor ${quote(name)} has offset ${offset}, not aligned to ${alignment}`);
    }
    const start = dataStart + Number(offset);
    if (start + bytes > cursor.fileBytes) {
      throw cursor.error(
        `tensor ${
          quote(name)
        } has offset ${offset} and size ${bytes}: the file is truncated at byte ${cursor.fileBytes}`,
      );
    }
    tensors.set(name, { name, type, shape: [...dims].reverse(), offset: start, bytes });
  }
  checkOverlaps(cursor, [...tensors.values()]);
  return tensors;
}

function checkOverlaps(cursor: Cursor, tensors: GgufTensor[]): void {
  tensors.sort((a, b) => a.offset - b.offset);
  for (let i = 1; i < tensors.length; i++) {
    if (tensors[i].offset < tensors[i - 1].offset + tensors[i - 1].bytes) {
      throw cursor.error(`tensors ${quote(tensors[i - 1].name)} and ${quote(tensors[i].name)} overlap`);
    }
  }
}

function readAlignment(cursor: Cursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  const valid = typeof alignment === "number" && alignment >= 8 && alignment <= 65536 &&
    Number.isInteger(Math.log2(alignment));
  if (!valid) throw cursor.error(`general.alignment is ${alignment}, must be a power of two from 8 to 65536`);
  return alignment;
}

/** Value types of the format, by id: bytes and reader of one value. */
const SCALARS: ReadonlyMap<
  number,
  { readonly bytes: number; read(cursor: Cursor): number | bigint | boolean }
> = new Map([
  [0, { bytes: 1, read: (c) => c.view(1).getUint8(0) }],
  [1, { bytes: 1, read: (c) => c.view(1).getInt8(0) }],
  [2, { bytes: 2, read: (c) => c.view(2).getUint16(0, true) }],
  [3, { bytes: 2, read: (c) => c.view(2).getInt16(0, true) }],
  [4, { bytes: 4, read: (c) => c.u32() }],
  [5, { bytes: 4, read: (c) => c.view(4).getInt32(0, true) }],
  [6, { bytes: 4, read: (c) => c.view(4).getFloat32(0, true) }],
  [7, { bytes: 1, read: (c) => c.view(1).getUint8(0) !== 0 }],
  [10, { bytes: 8, read: (c) => safeNumber(c.u64()) }],
  [11, { bytes: 8, read: (c) => safeNumber(c.view(8).getBigInt64(0, true)) }],
  [12, { bytes: 8, read: (c) => c.view(8).getFloat64(0, true) }],
] as [number, { bytes: number; read(cursor: Cursor): number | bigint | boolean }][]);
const STRING = 8, ARRAY = 9;

/** Arrays whose bytes are the values: the longest ones (scores, token types). */
const TYPED_ARRAYS: ReadonlyMap<number, new (buffer: ArrayBuffer) => GgufArray> = new Map<
  number,
  new (buffer: ArrayBuffer) => GgufArray
>([
  [0, Uint8Array],
  [1, Int8Array],
  [2, Uint16Array],
  [3, Int16Array],
  [4, Uint32Array],
  [5, Int32Array],
  [6, Float32Array],
  [12, Float64Array],
]);

function readValue(cursor: Cursor, type: number): GgufValue {
  if (type === STRING) return cursor.string();
  if (type === ARRAY) return readArray(cursor);
  const scalar = SCALARS.get(type);
  if (!scalar) throw cursor.error(`metadata value type ${type} is unknown`);
  return scalar.read(cursor);
}

function readArray(cursor: Cursor): GgufArray {
  const type = cursor.u32();
  if (type === ARRAY) throw cursor.error("nested metadata arrays are unsupported");
  if (type === STRING) {
    const length = cursor.count("array length", 8);
    return Array.from({ length }, () => cursor.string());
  }
  const scalar = SCALARS.get(type);
  if (!scalar) throw cursor.error(`metadata array type ${type} is unknown`);
  const length = cursor.count("array length", scalar.bytes);
  const Typed = TYPED_ARRAYS.get(type);
  if (Typed) return new Typed(cursor.take(length * scalar.bytes).slice().buffer);
  return Array.from({ length }, () => scalar.read(cursor)) as (number | bigint)[];
}

function safeNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);

/** Reads on through the bytes at hand; the file's true size bounds every length. */
class Cursor {
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
