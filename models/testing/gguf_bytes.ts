/** GGUF files in memory (version 3, little-endian), as small as tests need them. */

/** Numbers are written as u32 when whole, else as f32; lists hold strings. */
export type GgufField = number | string | boolean | readonly string[];

export interface GgufTensorBytes {
  readonly name: string;
  /** Row-major, the longest stride first. */
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
  /** Id of the type that the header claims; the bytes are always F32. */
  readonly type?: number;
}

const ALIGNMENT = 32;

export function ggufBytes(
  metadata: Readonly<Record<string, GgufField>>,
  tensors: readonly GgufTensorBytes[],
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const put = (bytes: Uint8Array) => (parts.push(bytes), length += bytes.length);
  const raw = (values: Uint32Array | BigUint64Array | Float32Array) => put(new Uint8Array(values.buffer));
  const u32 = (n: number) => raw(new Uint32Array([n]));
  const u64 = (n: number) => raw(new BigUint64Array([BigInt(n)]));
  const string = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    u64(bytes.length), put(bytes);
  };
  const pad = () => put(new Uint8Array((ALIGNMENT - length % ALIGNMENT) % ALIGNMENT));
  const field = (value: GgufField) => {
    if (typeof value === "string") u32(8), string(value);
    else if (typeof value === "boolean") u32(7), put(Uint8Array.of(+value));
    else if (typeof value !== "number") u32(9), u32(8), u64(value.length), value.forEach(string);
    else if (Number.isInteger(value)) u32(4), u32(value);
    else u32(6), raw(new Float32Array([value]));
  };
  put(new TextEncoder().encode("GGUF"));
  u32(3), u64(tensors.length), u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) string(key), field(value);
  let offset = 0;
  for (const { name, shape, values, type = 0 } of tensors) {
    string(name), u32(shape.length), [...shape].reverse().forEach(u64), u32(type), u64(offset);
    offset += Math.ceil(4 * values.length / ALIGNMENT) * ALIGNMENT;
  }
  pad();
  for (const { values } of tensors) raw(Float32Array.from(values)), pad();
  const file = new Uint8Array(length);
  parts.reduce((at, part) => (file.set(part, at), at + part.length), 0);
  return file;
}
