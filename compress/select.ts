/** Chooses which entries of a layer S stores: masks of 0 and 1 bytes, `[dOut, dIn]`. */
import { CHUNK, finestSlots } from "../kernels/layout.ts";
import { assignWindows } from "../kernels/packers.ts";
import { DENSE_WINDOWS, keptOfGroup, type LayerBudget } from "./budget.ts";
import type { Groups } from "../models/recipe.ts";
import { type Matrix, matrix } from "./linalg/matrix.ts";
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

/** How a pattern chooses the entries of S for a layer of one shape and budget. Masks are 1 where an entry is stored. */
export interface EntryChoice {
  /** Whether every row simply keeps its best entries. */
  readonly rowWise: boolean;
  /** Columns that are chosen at once in a sweep: ranges begin at multiples of it, and only the last may be shorter. */
  readonly span: number;
  /** @param scores `[dOut, dIn]`, >= 0: what dropping an entry costs */
  ofMatrix(scores: Matrix): Uint8Array;
  /**
   * The choice within a range of columns, for methods that change the columns after it before those are chosen.
   *
   * @param scores `[dOut, columns]`, >= 0
   * @param from first column of the range
   * @returns `[dOut, columns]`
   */
  ofColumns(scores: Matrix, from: number): Uint8Array;
}

/** Columns that SparseGPT's sweep chooses at once where the pattern does not say (arXiv 2301.00774). */
const SWEEP_COLUMNS = 128;

/** What the budget's pattern allows. */
export function entryChoice(
  budget: LayerBudget,
  { dIn, blockChunks }: { readonly dIn: number; readonly blockChunks: number },
): EntryChoice {
  const { windows, kept, groups } = budget;
  if (windows === 0 || kept === 0) return everywhere(0);
  if (windows !== null && windows < DENSE_WINDOWS) return windowChoice(windows, blockChunks);
  return groups && groups.n < groups.m ? groupChoice(groups) : rowChoice(kept, dIn);
}

/** All entries, or none. */
function everywhere(value: 0 | 1): EntryChoice {
  const of = ({ data }: Matrix) => new Uint8Array(data.length).fill(value);
  return { rowWise: true, span: SWEEP_COLUMNS, ofMatrix: of, ofColumns: of };
}

/** The best that the two-view windows of every activation block can hold. */
function windowChoice(windows: number, blockChunks: number): EntryChoice {
  const of = ({ data, rows, cols }: Matrix) =>
    assignWindows(data, [rows, cols], { ...finestSlots(windows), blockChunks });
  return { rowWise: false, span: blockChunks * CHUNK, ofMatrix: of, ofColumns: of };
}

/** The best of every row; in a sweep the best of all rows in the range, its share of them, as SparseGPT does. */
export function rowChoice(kept: number, dIn: number): EntryChoice {
  if (kept >= dIn) return everywhere(1);
  return {
    rowWise: true,
    span: SWEEP_COLUMNS,
    ofMatrix: (scores) => keepPerRow(scores, kept),
    ofColumns(scores, from) {
      const upTo = (column: number) => Math.floor(kept * scores.rows * column / dIn);
      const all = matrix(1, scores.data.length, scores.data);
      return keepPerRow(all, upTo(from + scores.cols) - upTo(from));
    },
  };
}

/** The best N of every M consecutive entries of a row. */
function groupChoice(groups: Groups): EntryChoice {
  const of = (scores: Matrix) => keepPerGroup(scores, groups);
  return { rowWise: false, span: groups.m, ofMatrix: of, ofColumns: of };
}

/** The N highest scores of every M consecutive ones of a row; of equal ones the leftmost. */
export function keepPerGroup({ rows, cols, data }: Matrix, groups: Groups): Uint8Array {
  const mask = new Uint8Array(data.length);
  for (let i = 0; i < rows; i++) {
    const end = (i + 1) * cols;
    for (let from = i * cols; from < end; from += groups.m) {
      const to = Math.min(from + groups.m, end);
      for (let left = keptOfGroup(to - from, groups); left > 0; left--) {
        let best = -1;
        for (let at = from; at < to; at++) if (!mask[at] && (best < 0 || data[at] > data[best])) best = at;
        mask[best] = 1;
      }
    }
  }
  return mask;
}
