/**
 * OATS, Outlier-Aware pruning through Sparse and low-rank decomposition (arXiv 2409.13652): with A = W diag(d),
 * alternate L = best rank-r approximation of A - S and S = the largest entries of A - L in every row; then
 * W ~ (S + L) diag(1 / d).
 */
import { type BestFactors, type Factors, subspaceStep, truncatedSvd } from "../linalg/low_rank.ts";
import { type Matrix, matrix, reciprocals, scaleColumns, subtract, unitSized } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { RowThreshold } from "../row_threshold.ts";
import type { EntryChoice } from "../select.ts";
import { type CompressionMethod, maskedEntries, type MethodContext } from "./method.ts";

/**
 * How far L is extrapolated along its last step before S is chosen. Measured on SmolLM2 (rate 0.5): 13-17 fast
 * iterations with 0.9 reach the error of 80 plain exact ones; 0 needs 80.
 */
const EXTRAPOLATION = 0.9;

/**
 * Last step, with S chosen by the pattern itself. The row-wise choice leaves a gap between kept and dropped values that
 * windows cannot follow: one step takes 6 % off the error of a windowed layer; a second would take 1.6 % for a tenth of the
 * time. N:M leaves a wider one and is chosen fast: there are as many such steps as row-wise ones (0, 2, 16 of them, q of
 * SmolLM2's block 2: error 0.057, 0.038, 0.027 with 2:4, 0.021, 0.016, 0.013 with 8:16).
 */
const PATTERN_STEPS = 1;

export const oats: CompressionMethod = {
  name: "oats",
  rankRatio: (recipe) => recipe.rank_ratio,
  needs: () => "scales",
  prepare(inputs, { recipe, linalg }) {
    const d = unitSized(inputs.d);
    return Promise.resolve({
      async compress({ W }, { budget, choice }) {
        const A = scaleColumns(W, d); // [dOut, dIn]
        const rank = Math.min(budget.rank, A.rows, A.cols);
        const start = await alternate(A, { rank, kept: budget.kept, recipe, linalg });
        const steps = rank === 0 || budget.kept === 0 || choice.rowWise
          ? 0
          : budget.groups
          ? recipe.iterations
          : PATTERN_STEPS;
        const { factors, mask } = await followPattern(A, start, { choice, steps, linalg });
        const U = factors.U, V = scaleColumns(factors.V, reciprocals(d));
        return { S: maskedEntries(subtract(W, await linalg.multiply(U, V)), mask, d), U, V, mask };
      },
    });
  },
};

/** L for S chosen row-wise: the paper's alternation, or one of its two ends. */
function alternate(A: Matrix, options: AlternateOptions): Promise<Factors> {
  const { rank, kept, linalg, recipe } = options;
  if (rank === 0) return Promise.resolve({ U: matrix(A.rows, 0), V: matrix(0, A.cols) });
  if (kept === 0) return truncatedSvd(A, rank, linalg);
  return (recipe.decomposition === "exact" ? alternateExactly : alternateFast)(A, options);
}

/** The pattern's choice of S, after `steps` more steps in which S was the pattern's as well. */
async function followPattern(
  A: Matrix,
  start: Factors,
  { choice, steps, linalg }: {
    readonly choice: EntryChoice;
    readonly steps: number;
    readonly linalg: Linalg;
  },
): Promise<{ factors: Factors; mask: Uint8Array }> {
  let factors = start, mask = choice.ofMatrix(await residualScores(A, factors, linalg));
  for (let i = 0; i < steps; i++) {
    const L = await linalg.multiply(factors.U, factors.V);
    const rest = matrix(A.rows, A.cols); // A - S
    for (let at = 0; at < rest.data.length; at++) rest.data[at] = mask[at] ? L.data[at] : A.data[at];
    factors = await subspaceStep(rest, factors.V, linalg);
    mask = choice.ofMatrix(await residualScores(A, factors, linalg));
  }
  return { factors, mask };
}

/** |A - L| */
async function residualScores(A: Matrix, { U, V }: Factors, linalg: Linalg): Promise<Matrix> {
  const scores = subtract(A, await linalg.multiply(U, V));
  for (let i = 0; i < scores.data.length; i++) scores.data[i] = Math.abs(scores.data[i]);
  return scores;
}

interface AlternateOptions extends MethodContext {
  readonly rank: number;
  /** Entries of S in every row. */
  readonly kept: number;
}

/** The paper's iteration: the best L in every step, found from the last one's. */
async function alternateExactly(
  A: Matrix,
  { rank, kept, recipe: { iterations }, linalg }: AlternateOptions,
): Promise<Factors> {
  const choice = new SparseChoice(A, kept);
  let factors!: BestFactors;
  for (let i = 0; i < iterations; i++) {
    if (i > 0) choice.take(await linalg.multiply(factors.U, factors.V));
    factors = await truncatedSvd(choice.rest(), rank, linalg, factors?.basis);
  }
  return factors; // the last S is the caller's to choose
}

/**
 * The same iteration with one step of subspace iteration, warm-started from the last basis, in place of the
 * factorisation, and L extrapolated. An extrapolated choice of S that raises the error is taken back.
 */
async function alternateFast(
  A: Matrix,
  { rank, kept, recipe: { iterations, calibration }, linalg }: AlternateOptions,
): Promise<Factors> {
  const random = seededRandom(calibration.seed);
  const choice = new SparseChoice(A, kept);
  const start = matrix(rank, A.cols, Float32Array.from({ length: A.cols * rank }, () => random.normal()));
  let factors = await subspaceStep(A, start, linalg);
  let last: Matrix | null = null, error = Infinity;
  for (let i = 0; i < iterations; i++) {
    if (i > 0) {
      const L: Matrix = await linalg.multiply(factors.U, factors.V);
      let next = choice.take(L, last);
      if (last && next > error) next = choice.take(L);
      error = next;
      last = L;
    }
    factors = await subspaceStep(choice.rest(), factors.V, linalg);
  }
  return factors; // the last S is the caller's to choose
}

/** S as it changes: the `kept` largest entries of A - L in every row, and those equal to the smallest of them. */
class SparseChoice {
  readonly #S: Float32Array;
  readonly #thresholds: Int32Array;
  readonly #row: Float32Array;
  readonly #search: RowThreshold;

  constructor(readonly A: Matrix, readonly kept: number) {
    this.#S = new Float32Array(A.data.length);
    this.#thresholds = new Int32Array(A.rows);
    this.#search = new RowThreshold(A.cols);
    this.#row = new Float32Array(A.cols);
  }

  /** A - S */
  rest(): Matrix {
    return subtract(this.A, { ...this.A, data: this.#S as Float32Array<ArrayBuffer> });
  }

  /**
   * Takes S from A - L, or from A - L - β (L - last) when `last` is given.
   *
   * @returns ||A - L - S||²
   */
  take(L: Matrix, last: Matrix | null = null): number {
    const { rows, cols } = this.A, row = this.#row, a = this.A.data, l = L.data, S = this.#S;
    const before = last?.data ?? l, beta = last ? EXTRAPOLATION : 0;
    const rowBits = new Int32Array(row.buffer), { bits } = this.#search;
    let error = 0;
    for (let i = 0; i < rows; i++) {
      const at = i * cols;
      for (let j = 0; j < cols; j++) {
        const x = l[at + j];
        row[j] = a[at + j] - x - beta * (x - before[at + j]);
        bits[j] = rowBits[j] & 0x7fffffff;
      }
      const bound = this.kept >= cols ? -1 : this.#search.find(this.kept, this.#thresholds[i]);
      this.#thresholds[i] = Math.max(0, bound);
      for (let j = 0; j < cols; j++) {
        const r = a[at + j] - l[at + j];
        if (bits[j] >= bound) {
          S[at + j] = row[j];
          error += (r - row[j]) * (r - row[j]);
        } else {
          S[at + j] = 0;
          error += r * r;
        }
      }
    }
    return error;
  }
}
