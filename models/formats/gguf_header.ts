/**
 * The GGUF header, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, counts, metadata,
 * tensor infos. Every count and length is checked against the file's size before anything is allocated for it.
 */
import { OatmillError } from "../../errors.ts";
import { GgufCursor } from "./gguf_cursor.ts";
import { GGML_TYPES, type GgmlType } from "./gguf_types.ts";
import { type GgufValue, readValue } from "./gguf_value.ts";

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
  const cursor = new GgufCursor(prefix, fileBytes, file);
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

function readTensorInfo(cursor: GgufCursor): TensorInfo {
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
  cursor: GgufCursor,
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

function checkOverlaps(cursor: GgufCursor, tensors: GgufTensor[]): void {
  tensors.sort((a, b) => a.offset - b.offset);
  for (let i = 1; i < tensors.length; i++) {
    if (tensors[i].offset < tensors[i - 1].offset + tensors[i - 1].bytes) {
      throw cursor.error(`tensors ${quote(tensors[i - 1].name)} and ${quote(tensors[i].name)} overlap`);
    }
  }
}

function readAlignment(cursor: GgufCursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  const valid = typeof alignment === "number" && alignment >= 8 && alignment <= 65536 &&
    Number.isInteger(Math.log2(alignment));
  if (!valid) throw cursor.error(`general.alignment is ${alignment}, must be a power of two from 8 to 65536`);
  return alignment;
}

const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
