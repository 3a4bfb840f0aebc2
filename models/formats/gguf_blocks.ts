/**
 * Quantisers of GGUF block types with the rounding of ggml's reference (quantize_row_*_ref in ggml/src/ggml-quants.c), so
 * that llama.cpp runs the same bytes that its own tool would have made of the same weights.
 */

/** Weights of a block. */
export const BLOCK = 32;

/** Writes one block: `values[v .. v + 32)` to bytes from `b`. */
type QuantizeBlock = (values: Float32Array, v: number, out: DataView, b: number) => void;

export interface BlockType {
  readonly blockBytes: number;
  readonly quantize: QuantizeBlock;
}

/** The reference computes in float32; so must every step here, or codes at a rounding border differ. */
const f = Math.fround;
const inverse = (d: number): number => d === 0 ? 0 : f(1 / d);

/** One f16 scale, absmax / 127; 32 signed bytes. Halves round away from zero, as C's roundf(). */
const q8_0: QuantizeBlock = (values, v, out, b) => {
  let peak = 0;
  for (let i = 0; i < BLOCK; i++) peak = Math.max(peak, Math.abs(values[v + i]));
  const d = f(peak / 127), id = inverse(d);
  out.setFloat16(b, d, true);
  for (let i = 0; i < BLOCK; i++) {
    const x = f(values[v + i] * id);
    out.setInt8(b + 2 + i, Math.trunc(x < 0 ? x - 0.5 : x + 0.5));
  }
};

/** One f16 scale, (value of largest size) / -8; 32 codes of 0..15 for -8..7: i and i + 16 share a byte. */
const q4_0: QuantizeBlock = (values, v, out, b) => {
  let peak = 0, signed = 0;
  for (let i = 0; i < BLOCK; i++) {
    const size = Math.abs(values[v + i]);
    if (size > peak) [peak, signed] = [size, values[v + i]];
  }
  const d = f(signed / -8), id = inverse(d);
  const code = (x: number) => Math.min(15, Math.trunc(f(f(x * id) + 8.5)));
  out.setFloat16(b, d, true);
  for (let i = 0; i < BLOCK / 2; i++) {
    out.setUint8(b + 2 + i, code(values[v + i]) | code(values[v + i + BLOCK / 2]) << 4);
  }
};

/** One f16 scale, (max - min) / 15; one f16 minimum; codes as above. */
const q4_1: QuantizeBlock = (values, v, out, b) => {
  let min = Infinity, max = -Infinity;
  for (let i = 0; i < BLOCK; i++) {
    min = Math.min(min, values[v + i]);
    max = Math.max(max, values[v + i]);
  }
  const d = f(f(max - min) / 15), id = inverse(d);
  const code = (x: number) => Math.min(15, Math.trunc(f(f(f(x - min) * id) + 0.5)));
  out.setFloat16(b, d, true);
  out.setFloat16(b + 2, min, true);
  for (let i = 0; i < BLOCK / 2; i++) {
    out.setUint8(b + 4 + i, code(values[v + i]) | code(values[v + i + BLOCK / 2]) << 4);
  }
};

/** By the format's name of the type. */
export const BLOCK_TYPES = {
  Q8_0: { blockBytes: 34, quantize: q8_0 },
  Q4_0: { blockBytes: 18, quantize: q4_0 },
  Q4_1: { blockBytes: 20, quantize: q4_1 },
} as const satisfies Record<string, BlockType>;
export type BlockTypeName = keyof typeof BLOCK_TYPES;

/**
 * @param values whole blocks of 32
 * @returns the blocks' bytes
 */
export function quantizeBlocks(type: BlockTypeName, values: Float32Array): Uint8Array<ArrayBuffer> {
  const { blockBytes, quantize } = BLOCK_TYPES[type];
  if (values.length % BLOCK !== 0) {
    throw new RangeError(`${values.length} values are no whole blocks of ${BLOCK}`);
  }
  const out = new Uint8Array(values.length / BLOCK * blockBytes);
  const view = new DataView(out.buffer);
  for (let v = 0, b = 0; v < values.length; v += BLOCK, b += blockBytes) quantize(values, v, view, b);
  return out;
}
