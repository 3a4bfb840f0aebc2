/**
 * How keys and values lie in the KV pools: the one table that memory planning, kernels and reference share.
 *
 * A pool of one layer is `[KV block][kv head]` pieces of 16 tokens. A piece of int8 opens with its tokens' scales, f32
 * `[16]`; in K then -64 x the sum of each token's codes, i32 `[16]` (queries are stored with offset 64). Then elements by
 * *steps*; a lane holds the `together` elements of a step side by side, as dot products take them:
 * - K `[steps of dims][16 tokens][together]`: transposed, so that the scores of 16 tokens need no horizontal sums;
 * - V `[tiles of 8 dims][steps of tokens][8 dims][together]`: what the kernels read in one pass is one stream.
 * int8 keys are rotated (templates/attention.ts).
 */
import { KV_BLOCK_TOKENS } from "./abi.ts";

/** `f32`; `f16`: IEEE binary16, saturated; `int8`: codes -127..127 with one scale a token and kv head. */
export type KvFormat = "f32" | "f16" | "int8";

export interface KvLayout {
  readonly elementBytes: number;
  /** Elements of a lane: what one product of the kernels sums at once. */
  readonly together: 1 | 4;
  /** Bytes before the elements of a piece: scales; of K also what the offset of the query's codes adds. */
  readonly headerBytes: { readonly k: number; readonly v: number };
}

export const KV_LAYOUTS: Readonly<Record<KvFormat, KvLayout>> = {
  f32: { elementBytes: 4, together: 1, headerBytes: { k: 0, v: 0 } },
  f16: { elementBytes: 2, together: 1, headerBytes: { k: 0, v: 0 } },
  int8: { elementBytes: 1, together: 4, headerBytes: { k: KV_BLOCK_TOKENS * 8, v: KV_BLOCK_TOKENS * 4 } },
};

export const KV_FORMATS = Object.keys(KV_LAYOUTS) as readonly KvFormat[];

/** Dims that the kernels take of V at least: two vectors. */
const TILE_DIMS = 8;

/** Bytes of one piece (one KV block and kv head) of K and of V. */
export function kvPieceBytes(format: KvFormat, headDim: number): { readonly k: number; readonly v: number } {
  const { elementBytes, together, headerBytes } = KV_LAYOUTS[format];
  const dims = (unit: number) => Math.ceil(headDim / unit) * unit;
  const bytes = (width: number) => KV_BLOCK_TOKENS * width * elementBytes;
  return { k: headerBytes.k + bytes(dims(together)), v: headerBytes.v + bytes(dims(TILE_DIMS)) };
}

/** Byte of an element inside a piece. */
export function kvElementAt(
  format: KvFormat,
  part: "k" | "v",
  { token, dim }: { readonly token: number; readonly dim: number },
): number {
  const { elementBytes, together, headerBytes } = KV_LAYOUTS[format];
  const [step, lane, lanes, before] = part === "k"
    ? [dim, token, KV_BLOCK_TOKENS, 0]
    : [token, dim % TILE_DIMS, TILE_DIMS, Math.floor(dim / TILE_DIMS) * TILE_DIMS * KV_BLOCK_TOKENS];
  const index = before + (Math.floor(step / together) * lanes + lane) * together + step % together;
  return headerBytes[part] + index * elementBytes;
}

/**
 * Tokens after which the kernels close a partial softmax (flash decoding): a fixed boundary, counted from position 0, so
 * that results do not depend on how a context is shared by threads.
 */
export const PART_TOKENS = 512;
/** Tokens whose scores are held at once. */
export const ATTENTION_CHUNK = 64;

/** Floats of the record of one partial softmax: maximum, sum, two unused, then the weighted sum of V. */
export const partFloats = (headDim: number): number => 4 + Math.ceil(headDim / TILE_DIMS) * TILE_DIMS;

/** Bytes of scratch of one `attention` call for up to `queries` query heads (rows x groupSize). */
export function attentionScratchBytes(queries: number, headDim: number): number {
  const groups = Math.ceil(queries / 4);
  return 4 * (groups * (4 * headDim + 16) + 8 * ATTENTION_CHUNK + 2 * queries * partFloats(headDim));
}
