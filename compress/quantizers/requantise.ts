/** From values that have moved a little back to codes: every run keeps its scale unless another one is nearer. */
import {
  type CodedMatrix,
  type CodeGrid,
  fromBf16,
  quantizeRow,
  roundScale,
  runCount,
} from "../../kernels/packers.ts";
import type { Matrix } from "../linalg/matrix.ts";
import { clampToGrid } from "./grid.ts";

/** Squared errors below this share of the squares are f32's: values went through the columns' scales and back. */
const ROUNDING_NOISE = 2 ** -40;

export interface RequantiseOptions {
  /** As it was stored. */
  readonly before: CodedMatrix;
  readonly grid: CodeGrid;
}

/**
 * Rounds to nearest with the better of two scales, that of `before` and the one that a search finds. So values that did not
 * move get the codes they had, however those were chosen, and no run's squared error is above that of rounding to nearest.
 *
 * @param W `[dOut, dIn]`, the shape of `before`; zeros keep code 0
 */
export function requantise(W: Matrix, { before, grid }: RequantiseOptions): CodedMatrix {
  const { rows, cols, data } = W, { runColumns } = before, runs = runCount(cols, runColumns);
  const codes = new Int8Array(rows * cols), scales = new Float32Array(rows * runs);
  const kept = new Int8Array(runColumns), found = new Int8Array(runColumns);
  for (let row = 0; row < rows; row++) {
    for (let run = 0; run < runs; run++) {
      const from = row * cols + run * runColumns;
      const values = data.subarray(from, Math.min(from + runColumns, (row + 1) * cols));
      const old = before.scales[row * runs + run];
      const other = fromBf16(quantizeRow(values, null, values.length, grid, found));
      roundTo(values, old, { grid, codes: kept });
      const noise = ROUNDING_NOISE * squaredError(values, kept, 0);
      const keeps = squaredError(values, kept, old) <= Math.max(noise, squaredError(values, found, other));
      codes.set((keeps ? kept : found).subarray(0, values.length), from);
      scales[row * runs + run] = roundScale(keeps ? old : other);
    }
  }
  return { rows, cols, codes, scales, runColumns };
}

/** @param options.codes gets the nearest codes of a scale; all 0 of scale 0 */
function roundTo(
  values: Float32Array,
  scale: number,
  { grid, codes }: { readonly grid: CodeGrid; readonly codes: Int8Array },
): void {
  for (let i = 0; i < values.length; i++) {
    codes[i] = scale === 0 ? 0 : clampToGrid(grid, Math.round(values[i] / scale));
  }
}

function squaredError(values: Float32Array, codes: Int8Array, scale: number): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] - codes[i] * scale) ** 2;
  return sum;
}
