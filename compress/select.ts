/** Chooses which entries of a layer S stores: masks of 0 and 1 bytes, `[dOut, dIn]`. */
import { assignWindows } from "../kernels/packers.ts";
import { DENSE_WINDOWS, type LayerBudget } from "./budget.ts";
import type { Matrix } from "./linalg/matrix.ts";
import { RowThreshold } from "./row_threshold.ts";

/** The `kept` highest scores of every row; of equal ones the leftmost. */
export function keepPerRow(scores: Matrix, kept: number): Uint8Array {
  const { rows, cols } = scores, mask = new Uint8Array(rows * cols);
  if (kept <= 0) return mask;
  if (kept >= cols) return mask.fill(1);
  const all = new Int32Array(scores.data.buffer, scores.data.byteOffset, rows * cols);
  const threshold = new RowThreshold(cols);
  for (let i = 0, guess = 0; i < rows; i++) {
    const row = all.subarray(i * cols, (i + 1) * cols);
    threshold.bits.set(row);
    const bound = guess = threshold.find(kept, guess);
    let ties = kept;
    for (const b of row) if (b > bound) ties--;
    for (let j = 0; j < cols; j++) {
      if (row[j] > bound || (row[j] === bound && ties-- > 0)) mask[i * cols + j] = 1;
    }
  }
  return mask;
}

/** The pattern's choice: the best entries that the layer's windows can hold, or simply the best of each row. */
export function selectEntries(
  scores: Matrix,
  budget: LayerBudget,
  options: { readonly blockChunks: number },
): Uint8Array {
  const { rows, cols } = scores, { windows } = budget;
  if (windows === null || windows >= DENSE_WINDOWS) return keepPerRow(scores, budget.kept);
  if (windows === 0) return new Uint8Array(rows * cols);
  return assignWindows(scores.data, [rows, cols], { windows, blockChunks: options.blockChunks });
}
