/**
 * What the removed inputs of a layer carried is given to the kept ones, as far as they can tell it: least squares on the
 * calibration inputs.
 */
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { dampedMoments } from "./damped_moments.ts";

/** Which inputs of a layer stay and which go, both ascending. */
export interface Split {
  readonly kept: readonly number[];
  readonly removed: readonly number[];
}

/** @param kept ascending, of 0 .. n - 1 */
export function splitOf(n: number, kept: readonly number[]): Split {
  const stays = new Set(kept);
  return { kept, removed: Array.from({ length: n }, (_, i) => i).filter((i) => !stays.has(i)) };
}

/**
 * The columns W' `[dOut, kept]` that minimise |W X - W' X_K|² + λ |W' - W_K|²:
 * W' = W_K + W_P H_PK (H_KK + λ)^-1, K the kept inputs, P the removed ones. Damped towards W_K and not towards 0: inputs that
 * say nothing about the removed ones change nothing.
 *
 * @param W `[dOut, dIn]`
 * @param H `[dIn, dIn]` second moments of the inputs; null leaves W_K as it is
 */
export async function correctedColumns(
  W: Matrix,
  split: Split,
  { H, linalg }: { readonly H: Float32Array | null; readonly linalg: Linalg },
): Promise<Matrix> {
  const { kept, removed } = split;
  const start = columnsOf(W, kept);
  if (!H || removed.length === 0) return start;
  const change = await linalg.multiply(columnsOf(W, removed), regression(H, split));
  return matrix(W.rows, kept.length, start.data.map((x, i) => x + change.data[i]));
}

/** The named columns of W, side by side. */
export function columnsOf(W: Matrix, columns: readonly number[]): Matrix {
  const out = matrix(W.rows, columns.length);
  for (let i = 0, at = 0; i < W.rows; i++) {
    for (const j of columns) out.data[at++] = W.data[i * W.cols + j];
  }
  return out;
}

/** H_PK (H_KK + λ)^-1 `[removed, kept]`: how each removed input follows from the kept ones. Dead ones follow from none. */
function regression(H: Float32Array, { kept, removed }: Split): Matrix {
  const n = kept.length, { d, C, unit } = dampedMoments(H, kept);
  const out = matrix(removed.length, n);
  removed.forEach((p, row) => {
    const x = solve(C, Float64Array.from(kept, (j) => unit(p, j)));
    for (let b = 0; b < n; b++) out.data[row * n + b] = d[kept[b]] > 0 ? x[b] * d[p] / d[kept[b]] : 0;
  });
  return out;
}

/** x of C C' x = b, in place of b; C a lower triangle, read in order both times. */
function solve(C: Float64Array, b: Float64Array): Float64Array {
  const n = b.length;
  for (let i = 0; i < n; i++) {
    let sum = b[i];
    for (let k = 0, at = i * n; k < i; k++) sum -= C[at + k] * b[k];
    b[i] = sum / C[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    const x = b[i] /= C[i * n + i];
    for (let k = 0, at = i * n; k < i; k++) b[k] -= C[at + k] * x;
  }
  return b;
}
