/** Metadata values of a GGUF file. */
import type { GgufCursor } from "./gguf_cursor.ts";

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

/** Value types of the format, by id: bytes and reader of one value. */
const SCALARS: ReadonlyMap<
  number,
  { readonly bytes: number; read(cursor: GgufCursor): number | bigint | boolean }
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
] as [number, { bytes: number; read(cursor: GgufCursor): number | bigint | boolean }][]);
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

export function readValue(cursor: GgufCursor, type: number): GgufValue {
  if (type === STRING) return cursor.string();
  if (type === ARRAY) return readArray(cursor);
  const scalar = SCALARS.get(type);
  if (!scalar) throw cursor.error(`metadata value type ${type} is unknown`);
  return scalar.read(cursor);
}

function readArray(cursor: GgufCursor): GgufArray {
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
