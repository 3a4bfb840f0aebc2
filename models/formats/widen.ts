/** Widens the stored float types to float32; exact for all of them. */

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
