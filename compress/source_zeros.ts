/** Models that were pruned elsewhere: with method `none` a layer's zeros are left out where that pays, and nothing else. */
import type { Shape2, WindowCount } from "../kernels/layout.ts";
import { slotsNeeded } from "../kernels/packers.ts";
import type { Recipe } from "../models/recipe.ts";
import { type Matrix, nonZeroMask, nonZeros } from "./linalg/matrix.ts";
import { noLowRank, type SparseLowRank } from "./methods/method.ts";
import { codeBits } from "./quantizers/grid.ts";

/**
 * With more windows a layer is slower than a dense one of the same bits. Dense against 9, 10, 11, 12 windows: 8 bits
 * 1.23, 1.19, 1.05, 0.98 at batch 1 from memory and 1.23, 1.12, 1.03, 0.95 in batches; 4 bits with 10, 11: 0.90, 0.82 and
 * 1.11, 1.02. Masks of 2:4, 4:8, 8:16 and half of the entries at random fit 9 to 11 (2048 rows).
 */
const MOST_WINDOWS = { 8: 11, 4: 10 } as const;
/** Masks that keep more fit no such windows: they are not worth the search. */
const MOST_KEPT = MOST_WINDOWS[8] / 16;

/**
 * S = W without its zeros.
 *
 * @param W `[dOut, dIn]`
 * @returns null when the layer stays dense; `slots` null with f32 values, which are stored with their zeros
 */
export function sparseAsItIs(
  W: Matrix,
  { values, blockChunks }: { readonly values: Recipe["values"]; readonly blockChunks: number },
): (SparseLowRank & { readonly slots: WindowCount | null }) | null {
  if (nonZeros(W) > MOST_KEPT * W.data.length) return null;
  const parts = { S: W, ...noLowRank(W) };
  if (values === "f32") return { ...parts, slots: null };
  const shape: Shape2 = [W.rows, W.cols];
  const slots = slotsNeeded(nonZeroMask(W.data), shape, blockChunks);
  return slots.windows <= MOST_WINDOWS[codeBits(values)] ? { ...parts, slots } : null;
}
