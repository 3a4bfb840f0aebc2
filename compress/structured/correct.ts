/**
 * What the removed inputs of a layer carried is given to the kept ones, as far as they can tell it: least squares on the
 * calibration inputs.
 */
import { type Matrix, matrix, reciprocals, scaleColumns, unitPower } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { dampedInverse, inputSizes, unitMoments } from "./damped_moments.ts";

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
  const { kept, removed } = split, start = columnsOf(W, kept);
  if (!H || removed.length === 0) return start;
  const d = inputSizes(H), power = unitPower(d);
  const sizes = (inputs: readonly number[]) => Float32Array.from(inputs, (j) => d[j] * power);
  const A = scaleColumns(columnsOf(W, removed), sizes(removed));
  const U = await dampedInverse(H, kept, linalg);
  const half = await linalg.multiply(
    await linalg.multiply(A, unitMoments(H, removed, kept)),
    U,
    { transB: true },
  );
  const change = scaleColumns(await linalg.multiply(half, U), reciprocals(sizes(kept)));
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
