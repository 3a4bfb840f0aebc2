/** Rounds to nearest, with a search for every run's scale. */
import { type CodedMatrix, type CodeGrid, fromBf16, quantizeRow, runCount } from "../../kernels/packers.ts";
import type { Matrix } from "../linalg/matrix.ts";

export interface NearestOptions {
  readonly grid: CodeGrid;
  /** Columns that share a scale. */
  readonly runColumns: number;
  /** `[dIn]` weights of the squared errors in the search. */
  readonly importance?: Float32Array;
}

/** @param W `[dOut, dIn]`; zeros keep code 0 */
export function nearest(W: Matrix, { grid, runColumns, importance }: NearestOptions): CodedMatrix {
  const { rows, cols, data } = W, runs = runCount(cols, runColumns);
  const codes = new Int8Array(rows * cols), scales = new Float32Array(rows * runs);
  for (let i = 0; i < rows; i++) {
    for (let run = 0; run < runs; run++) {
      const from = run * runColumns, to = Math.min(cols, from + runColumns), row = i * cols;
      const weights = importance ? importance.subarray(from, to) : null;
      const own = codes.subarray(row + from, row + to);
      const bits = quantizeRow(data.subarray(row + from, row + to), weights, to - from, grid, own);
      scales[i * runs + run] = fromBf16(bits);
    }
  }
  return { rows, cols, codes, scales, runColumns };
}
