/** Float32 in the types that files store, rounded to nearest. Little-endian. */
import { OatmillError } from "../errors.ts";

export const FLOAT_TYPES = ["f32", "f16", "bf16"] as const;
export type FloatType = (typeof FLOAT_TYPES)[number];

/**
 * @param name what messages call the values
 * @throws {OatmillError} unsupported_format when a value is beyond the type
 */
export function encodeFloats(
  values: Float32Array<ArrayBuffer>,
  type: FloatType,
  name: string,
): Uint8Array<ArrayBuffer> {
  if (type === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const codes = type === "f16" ? new Float16Array(values) : bfloat16(values);
  if (codes instanceof Float16Array && !codes.every(Number.isFinite)) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot write tensor "${name}" as f16: it has values beyond 65504; use bf16 or f32`,
    );
  }
  return new Uint8Array(codes.buffer);
}

/** The upper 16 bits, ties to even. */
function bfloat16(values: Float32Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const codes = new Uint16Array(values.length);
  for (let i = 0; i < codes.length; i++) codes[i] = (bits[i] + 0x7fff + (bits[i] >>> 16 & 1)) >>> 16;
  return codes;
}
