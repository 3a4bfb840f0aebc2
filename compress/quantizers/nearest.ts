/** Rounds to nearest, with a search for every run's scale. */
import { type CodedMatrix, roundScale, runCount } from "../../kernels/packers.ts";
import type { Matrix } from "../linalg/matrix.ts";
import { clampToGrid, type Grid } from "./grid.ts";

/**
 * Scales tried, as multiples of the one at which the largest magnitude takes the grid's last code. Fewer codes bear more
 * clipping.
 */
const MULTIPLES = [1, 1.06, 0.94, 0.88, 0.82, 0.76, 0.7, 0.64];

export interface NearestOptions {
  readonly grid: Grid;
  /** Columns that share a scale. */
  readonly runColumns: number;
  /** `[dIn]` weights of the squared errors in the search. */
  readonly importance?: ArrayLike<number>;
}

/** @param W `[dOut, dIn]`; zeros keep code 0 */
export function nearest(W: Matrix, { grid, runColumns, importance }: NearestOptions): CodedMatrix {
  const { rows, cols, data } = W, runs = runCount(cols, runColumns);
  const codes = new Int8Array(rows * cols), scales = new Float32Array(rows * runs);
  for (let i = 0; i < rows; i++) {
    for (let run = 0; run < runs; run++) {
      const from = run * runColumns, to = Math.min(cols, from + runColumns);
      const values = data.subarray(i * cols + from, i * cols + to);
      const scale = bestScale(values, grid, importance && { weights: importance, from });
      scales[i * runs + run] = scale;
      if (scale === 0) continue;
      for (let k = 0; k < values.length; k++) {
        codes[i * cols + from + k] = clampToGrid(grid, Math.round(values[k] / scale));
      }
    }
  }
  return { rows, cols, codes, scales, runColumns };
}

/** @returns 0 when every value rounds to 0 */
function bestScale(
  values: Float32Array,
  grid: Grid,
  importance?: { readonly weights: ArrayLike<number>; readonly from: number },
): number {
  let top = 0; // of largest magnitude, with its sign
  for (const v of values) if (Math.abs(v) > Math.abs(top)) top = v;
  const unit = -grid.min > grid.max ? top / grid.min : Math.abs(top) / grid.max;
  let best = 0, least = Infinity;
  for (const multiple of MULTIPLES) {
    const scale = roundScale(unit * multiple);
    if (scale === 0) continue;
    let error = 0;
    for (let k = 0; k < values.length && error < least; k++) {
      const e = values[k] - scale * clampToGrid(grid, Math.round(values[k] / scale));
      error += importance ? e * e * importance.weights[importance.from + k] : e * e;
    }
    if (error < least) [best, least] = [scale, error];
  }
  return best;
}
