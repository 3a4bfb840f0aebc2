/** Writes GGUF, version 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): header bytes, then tensors one by one. */
import { GGML_TYPES } from "../models/formats/gguf_types.ts";

/** A metadata value with its type in the file. */
export type GgufEntry =
  | { readonly string: string }
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly strings: readonly string[] }
  | { readonly i32s: readonly number[] }
  | { readonly f32s: readonly number[] };

export interface GgufTensorInfo {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly type: string;
  readonly bytes: number;
}

const VERSION = 3;
/** The default; what a file does not say with `general.alignment`. */
const ALIGNMENT = 32;
const TYPE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;
const TYPE_IDS = new Map(GGML_TYPES.entries().map(([id, { name }]) => [name, id]));

/** Zeros that follow so many bytes. */
export const padding = (bytes: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array((ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT);

/** Everything before the data of the first tensor; each tensor is followed by its {@linkcode padding}. */
export function ggufHeader(
  metadata: Readonly<Record<string, GgufEntry>>,
  tensors: readonly GgufTensorInfo[],
): Uint8Array<ArrayBuffer> {
  const out = new Writer(), entries = Object.entries(metadata);
  out.bytes(new TextEncoder().encode("GGUF"));
  out.u32(VERSION);
  out.u64(tensors.length);
  out.u64(entries.length);
  for (const [key, value] of entries) {
    out.string(key);
    writeEntry(out, value);
  }
  let offset = 0;
  for (const { name, shape, type, bytes } of tensors) {
    out.string(name);
    out.u32(shape.length);
    for (const length of shape.toReversed()) out.u64(length); // innermost first
    out.u32(TYPE_IDS.get(type)!);
    out.u64(offset);
    offset += bytes + padding(bytes).length;
  }
  out.bytes(padding(out.length));
  return out.finish();
}

function writeEntry(out: Writer, value: GgufEntry): void {
  if ("string" in value) [out.u32(TYPE.string), out.string(value.string)];
  else if ("u32" in value) [out.u32(TYPE.u32), out.u32(value.u32)];
  else if ("f32" in value) [out.u32(TYPE.f32), out.numbers(Float32Array.of(value.f32))];
  else if ("bool" in value) [out.u32(TYPE.bool), out.numbers(Uint8Array.of(+value.bool))];
  else if ("strings" in value) {
    out.array(TYPE.string, value.strings.length);
    for (const text of value.strings) out.string(text);
  } else if ("i32s" in value) {
    out.array(TYPE.i32, value.i32s.length);
    out.numbers(Int32Array.from(value.i32s));
  } else {
    out.array(TYPE.f32, value.f32s.length);
    out.numbers(Float32Array.from(value.f32s));
  }
}

/** Little-endian values into a buffer that grows. */
class Writer {
  #buffer = new Uint8Array(1 << 16);
  length = 0;

  bytes(bytes: Uint8Array): void {
    if (this.length + bytes.length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(2 * this.#buffer.length, this.length + bytes.length));
      larger.set(this.#buffer.subarray(0, this.length));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.length);
    this.length += bytes.length;
  }
  numbers(values: ArrayBufferView): void {
    this.bytes(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  u32(value: number): void {
    this.numbers(Uint32Array.of(value));
  }
  u64(value: number): void {
    this.numbers(BigUint64Array.of(BigInt(value)));
  }
  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }
  array(type: number, length: number): void {
    this.u32(TYPE.array);
    this.u32(type);
    this.u64(length);
  }
  finish(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.length);
  }
}
