/**
 * SparseGPT (arXiv 2301.00774): columns are pruned from left to right, and what a dropped entry did on the inputs is made
 * up for by the columns after it (Optimal Brain Surgeon, with the order of the columns fixed for all rows). Which
 * entries are dropped is chosen during the sweep, from the weights as they have become.
 */
import { dampedFactor, inverseFactor } from "../linalg/positive_definite.ts";
import { type Matrix, matrix, place, rectangle, subtractAt } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import type { EntryChoice } from "../select.ts";
import { type CompressionMethod, type Decomposition, noLowRank } from "./method.ts";

/** Added to H's diagonal, as a share of its mean (the paper's). */
export const DAMPING = 0.01;
/** Columns after which the rest of the matrix follows (the paper's): fewer, and the products become small. */
const BLOCK = 128;

export const sparsegpt: CompressionMethod = {
  name: "sparsegpt",
  rankRatio: () => 0,
  needs: () => "moments",
  async prepare({ d, H }, { linalg }) {
    if (!H) throw new RangeError("SparseGPT needs the inputs' moments");
    const factor = await dampedInverse(d, H, linalg);
    return { compress: ({ W }, { choice }) => sweep(W, { d, factor, choice, linalg }) };
  },
};

/**
 * U of (H / m + damping)^-1 = U'U, m the mean of H's diagonal: the sweep does not depend on H's size, f32 does. Dead
 * columns get a diagonal of 1.
 */
function dampedInverse(d: Float32Array, H: Float32Array, linalg: Linalg): Promise<Matrix> {
  const n = d.length;
  let mean = 0, alive = 0;
  for (let i = 0; i < n; i++) {
    if (!(d[i] > 0)) continue;
    mean += H[i * n + i];
    alive++;
  }
  mean = mean > 0 ? mean / alive : 1;
  const damped = matrix(n, n, Float32Array.from(H, (h) => h / mean));
  for (let i = 0; i < n; i++) damped.data[i * n + i] = (d[i] > 0 ? damped.data[i * n + i] : 1) + DAMPING;
  return dampedFactor(damped, DAMPING, (H) => inverseFactor(H, linalg));
}

interface SweepOptions {
  readonly d: Float32Array;
  /** `[dIn, dIn]` upper triangle. */
  readonly factor: Matrix;
  readonly choice: EntryChoice;
  readonly linalg: Linalg;
}

async function sweep(W: Matrix, { d, factor, choice, linalg }: SweepOptions): Promise<Decomposition> {
  const { rows, cols } = W;
  const S = matrix(rows, cols, W.data.map((w, at) => d[at % cols] > 0 ? w : 0));
  const mask = new Uint8Array(rows * cols);
  const width = Math.ceil(BLOCK / choice.span) * choice.span;
  for (let from = 0; from < cols; from += width) {
    const to = Math.min(from + width, cols);
    const block = rectangle(S, 0, rows, from, to);
    const square = rectangle(factor, from, to, from, to);
    const { errors, kept } = sweepBlock(block, square, { choice, from });
    place(S, block, 0, from);
    for (let i = 0; i < rows; i++) {
      mask.set(kept.subarray(i * block.cols, (i + 1) * block.cols), i * cols + from);
    }
    if (to === cols) break;
    subtractAt(S, await linalg.multiply(errors, rectangle(factor, from, to, to, cols)), 0, to);
  }
  return { S, ...noLowRank(W), mask };
}

/**
 * Prunes one block of columns in place.
 *
 * @param block `[dOut, n]`
 * @param factor `[n, n]`, the block's square of U
 * @param from the block's first column in the layer
 * @returns what was dropped, over U's diagonal, and which entries stay: both `[dOut, n]`
 */
function sweepBlock(
  block: Matrix,
  factor: Matrix,
  { choice, from }: { readonly choice: EntryChoice; readonly from: number },
): { errors: Matrix; kept: Uint8Array } {
  const { rows, cols: n, data: w } = block, U = factor.data;
  const errors = matrix(rows, n), kept = new Uint8Array(rows * n);
  for (let left = 0; left < n; left += choice.span) {
    const right = Math.min(left + choice.span, n);
    const scores = rectangle(block, 0, rows, left, right);
    for (let at = 0; at < scores.data.length; at++) {
      const column = left + at % scores.cols;
      scores.data[at] = Math.abs(scores.data[at]) / U[column * n + column];
    }
    const chosen = choice.ofColumns(scores, from + left);
    for (let i = 0; i < rows; i++) {
      for (let c = left; c < right; c++) {
        if (chosen[i * scores.cols + c - left]) {
          kept[i * n + c] = 1;
          continue;
        }
        const error = errors.data[i * n + c] = w[i * n + c] / U[c * n + c];
        for (let j = c + 1; j < n; j++) w[i * n + j] -= error * U[c * n + j];
        w[i * n + c] = 0;
      }
    }
  }
  return { errors, kept };
}
