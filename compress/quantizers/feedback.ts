/** Error feedback (GPTQ, arXiv 2210.17323): every column is rounded after adding what the columns before it left. */
import { type CodedMatrix, type CodeGrid, runCount } from "../../kernels/packers.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import type { CarryFactor } from "./carry_factor.ts";
import { clampToGrid } from "./grid.ts";

/** Columns swept row by row before the rest of the matrix hears of their errors, in one product. */
const SWEEP_COLUMNS = 128;

export interface FeedbackOptions {
  readonly carry: CarryFactor;
  readonly grid: CodeGrid;
  /** `[dOut, dIn]`: 0 where nothing is stored and the code stays 0. */
  readonly mask?: Uint8Array;
  readonly linalg: Linalg;
}

/**
 * Codes of W on the scales of `start`, which stay: runs are those of the kernels, whatever the sweep's order.
 *
 * @param W `[dOut, dIn]`, 0 outside the mask
 */
export async function feedback(
  W: Matrix,
  start: CodedMatrix,
  options: FeedbackOptions,
): Promise<CodedMatrix> {
  const { rows, cols } = W, { R } = options.carry;
  const out: CodedMatrix = { ...start, codes: new Int8Array(rows * cols) };
  const carried = matrix(rows, cols); // Σ_{j<k} e_j R_jk, in the sweep's order
  for (let from = 0; from < cols; from += SWEEP_COLUMNS) {
    const to = Math.min(cols, from + SWEEP_COLUMNS), rest = cols - to;
    const E = sweep(W, out, { ...options, carried, from, to });
    if (rest === 0) break;
    const later = matrix(to - from, rest);
    for (let k = from; k < to; k++) {
      later.data.set(R.data.subarray(k * cols + to, (k + 1) * cols), (k - from) * rest);
    }
    const update = (await options.linalg.multiply(E, later)).data;
    for (let i = 0; i < rows; i++) {
      const row = i * cols + to;
      for (let k = 0; k < rest; k++) carried.data[row + k] += update[i * rest + k];
    }
  }
  return out;
}

interface SweepOptions extends FeedbackOptions {
  readonly carried: Matrix;
  readonly from: number;
  readonly to: number;
}

/** Rounds the columns at from..to-1 of the order into `out`; @returns their errors `[dOut, to - from]` */
function sweep(W: Matrix, out: CodedMatrix, { carry, grid, mask, carried, from, to }: SweepOptions): Matrix {
  const { rows, cols } = W, { order, R } = carry, { codes, scales, runColumns } = out;
  const runs = runCount(cols, runColumns), width = to - from;
  const E = matrix(rows, width), sum = new Float64Array(width);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < width; k++) sum[k] = carried.data[i * cols + from + k];
    for (let k = 0; k < width; k++) {
      const column = order[from + k], at = i * cols + column;
      if (mask && mask[at] === 0) continue;
      const scale = scales[i * runs + Math.floor(column / runColumns)];
      const code = scale === 0 ? 0 : clampToGrid(grid, Math.round((W.data[at] + sum[k]) / scale));
      codes[at] = code;
      const e = E.data[i * width + k] = W.data[at] - code * scale;
      const row = (from + k) * cols + from;
      for (let l = k + 1; l < width; l++) sum[l] += e * R.data[row + l];
    }
  }
  return E;
}
