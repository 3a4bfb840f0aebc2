/** The stored float types as float32: exact for all but float64, which is rounded. Little-endian. */

/** `source` holds little-endian values of 2 bytes and starts at an even byte. */
export function widenBfloat16(source: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const codes = new Uint16Array(source.buffer, source.byteOffset, out.length);
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < codes.length; i++) bits[i] = codes[i] << 16;
}

/** As {@linkcode widenBfloat16}, for IEEE half precision. */
export function widenFloat16(source: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  out.set(new Float16Array(source.buffer, source.byteOffset, out.length));
}

/** Values beyond float32 become infinite, which no weight may be. `source` starts at a multiple of 8. */
export function widenFloat64(source: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  out.set(new Float64Array(source.buffer, source.byteOffset, out.length));
}

/** 1 + 5 + 2 bits: the upper byte of an IEEE half. Micikevicius et al., FP8 Formats for Deep Learning (arXiv 2209.05433). */
export function widenFloat8E5M2(source: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  for (let i = 0; i < out.length; i++) out[i] = float16FromBits(source[i] << 8);
}

/** 1 + 4 + 3 bits, bias 7: no infinities, and one NaN of either sign (arXiv 2209.05433, as E4M3). */
export function widenFloat8E4M3(source: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  for (let i = 0; i < out.length; i++) out[i] = E4M3[source[i]];
}

const E4M3 = Float32Array.from({ length: 256 }, (_, bits) => {
  const exponent = bits >> 3 & 15, fraction = bits & 7;
  const magnitude = (bits & 127) === 127
    ? NaN
    : exponent === 0
    ? fraction * 2 ** -9
    : (8 + fraction) * 2 ** (exponent - 10);
  return bits & 128 ? -magnitude : magnitude;
});

/** One IEEE half from its 16 bits. */
export function float16FromBits(bits: number): number {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const magnitude = exponent === 31
    ? (fraction ? NaN : Infinity)
    : exponent === 0
    ? fraction * 2 ** -24
    : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}
