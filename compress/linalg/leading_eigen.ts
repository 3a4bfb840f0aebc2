/**
 * Leading eigenvectors of a Gram matrix by subspace iteration with a Chebyshev filter (Zhou, Saad, Tiago and Chelikowsky,
 * "Self-consistent-field calculations using Chebyshev-filtered subspace iteration", 2006), in products of ONNX Runtime.
 */
import { seededRandom } from "../random.ts";
import { orthonormalise, symmetricEigen } from "./factor.ts";
import { type Matrix, matrix, place, rectangle, scaleColumns, subtract } from "./matrix.ts";
import type { Linalg } from "./runtime.ts";

/** Energy that the result may miss: this share of what the best one leaves. A tenth of what tests allow. */
const MISSED = 1e-6;
/** And this share of the whole: an f32 Gram matrix knows no better. Residuals of its first vectors end at 8e-8. */
const ROUNDING = 1e-8;
/** Eigenvalues below this share of the largest are rounding of the Gram matrix: any vectors will do. */
const NOISE = 3e-7;
/** Columns beyond the rank, as a share of it and at least: the filter separates at the last of them. */
const GUARD_SHARE = 0.25, LEAST_GUARD = 8;
/** Random columns in every start: vectors that a warm start is orthogonal to are found through them. */
const FRESH = 4;
/** Smaller matrices are diagonalised whole: 64 take 1.5 ms. */
const SMALL = 64;
/** SmolLM2 takes 6 rounds from a random start, 2 from the last step's basis. */
const MAX_ROUNDS = 12;
const MIN_DEGREE = 2, MAX_DEGREE = 12;
/** How much more a filter may grow the first column than one at the bound: f32 has no more digits to lose. */
const MAX_GROWTH = 1e3;
/** Columns that miss less than this share of their part of the target are left out of the filter. */
const SETTLED = 0.1;

export interface LeadingOptions {
  readonly linalg: Linalg;
  /** `[n, any]`: the basis of a matrix close to G. */
  readonly start?: Matrix | null;
}

/**
 * The vectors of the `rank` largest eigenvalues of G, the largest first, and some more columns, which are worse: a
 * basis `[n, more than rank]`, orthonormal, to start from when G has changed a little. The first ones span what
 * captures the most energy of G up to {@linkcode MISSED} of the rest and {@linkcode ROUNDING} of the whole. That is
 * known from residuals: a Ritz value λ with residual ρ misses at most ρ²/gap, and at most ρ.
 *
 * @param G `[n, n]`, symmetric, positive semidefinite up to f32 rounding
 * @returns null where factorising G is faster (small, or rank a large share of n) or convergence is slow
 */
export async function leadingEigenvectors(
  G: Matrix,
  rank: number,
  { linalg, start = null }: LeadingOptions,
): Promise<Matrix | null> {
  const n = G.rows, wanted = rank + Math.max(LEAST_GUARD, Math.ceil(GUARD_SHARE * rank));
  if (n <= SMALL || 2 * (wanted + FRESH) > n) return null;
  let X = await orthonormalise(startColumns(n, wanted, start), linalg);
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const ritz = await rayleighRitz(G, X, linalg);
    const state = assess(ritz, { rank, wanted, energy: trace(G) });
    if (state.missed <= state.target) return ritz.X;
    X = await orthonormalise(
      await filter(G, ritz, { ...state, degree: degree(ritz, rank, state), linalg }),
      linalg,
    );
  }
  return null;
}

/** `[n, wanted + FRESH]`: what there is of `start`, then random columns. */
function startColumns(n: number, wanted: number, start: Matrix | null): Matrix {
  const random = seededRandom(0), X = matrix(n, wanted + FRESH);
  for (let i = 0; i < X.data.length; i++) X.data[i] = random.normal();
  if (start) place(X, rectangle(start, 0, n, 0, Math.min(wanted, start.cols)), 0, 0);
  return X;
}

function trace({ rows, data }: Matrix): number {
  let sum = 0;
  for (let i = 0; i < rows; i++) sum += data[i * (rows + 1)];
  return sum;
}

interface Ritz {
  /** `[n, k]`, orthonormal. */
  readonly X: Matrix;
  /** G X `[n, k]` */
  readonly GX: Matrix;
  /** `[k]`, descending. */
  readonly values: Float64Array;
  /** `[k]` ||G x - λ x||² */
  readonly residuals: Float64Array;
}

/** The best approximations of eigenvectors in the span of X. */
async function rayleighRitz(G: Matrix, X: Matrix, linalg: Linalg): Promise<Ritz> {
  const k = X.cols, product = await linalg.multiply(G, X);
  const inner = symmetricEigen((await linalg.multiply(X, product, { transA: true })).data, k);
  const turn = matrix(k, k, Float32Array.from(inner.vectors).reverse()); // rows: the largest first, each back to front
  for (let i = 0; i < k; i++) turn.data.subarray(i * k, (i + 1) * k).reverse();
  const turned = await linalg.multiply(X, turn, { transB: true });
  const GX = await linalg.multiply(product, turn, { transB: true });
  const values = inner.values.reverse(), residuals = new Float64Array(k);
  for (let at = 0; at < GX.data.length;) {
    for (let j = 0; j < k; j++, at++) residuals[j] += (GX.data[at] - values[j] * turned.data[at]) ** 2;
  }
  return { X: turned, GX, values, residuals };
}

interface State {
  /** The filter damps eigenvalues below this one. */
  readonly bound: number;
  /** Energy that the first `rank` vectors miss, and may miss. */
  readonly missed: number;
  readonly target: number;
  /** So many of the first vectors are as good as they need to be. */
  readonly settled: number;
}

function assess(
  { values, residuals }: Ritz,
  { rank, wanted, energy }: { readonly rank: number; readonly wanted: number; readonly energy: number },
): State {
  const noise = NOISE * values[0], bound = Math.max(noise, values[wanted - 1]);
  const losses = Array.from(values.subarray(0, rank), (value, i) => {
    if (value <= noise) return 0;
    return Math.min(Math.sqrt(residuals[i]), residuals[i] / Math.max(Number.MIN_VALUE, value - bound));
  });
  const missed = losses.reduce((sum, x) => sum + x, 0);
  const left = values.subarray(0, rank).reduce((sum, x) => sum - x, energy);
  const target = MISSED * Math.max(0, left) + ROUNDING * energy;
  const open = losses.findIndex((x) => x > SETTLED * target / rank);
  return { bound, missed, target, settled: open < 0 ? rank : open };
}

/** The least degree that reaches the target, as far as f32 allows. */
function degree({ values }: Ritz, rank: number, { bound, missed, target, settled }: State): number {
  const rate = (value: number) => Math.acosh(Math.max(1 + Number.EPSILON, 2 * value / bound - 1));
  const needed = Math.log(4 * Math.sqrt(missed / target)) / rate(values[rank - 1]);
  const possible = Math.log(2 * MAX_GROWTH) / rate(values[settled]);
  return Math.max(MIN_DEGREE, Math.min(MAX_DEGREE, Math.ceil(needed), Math.floor(possible)));
}

/**
 * X with T(G) applied to its columns that are not settled: T, the Chebyshev polynomial of [0, bound], stays within 1 there
 * and grows fastest beyond. G is without its settled vectors, or their rounding would outgrow the rest.
 */
async function filter(
  G: Matrix,
  { X, GX, values }: Ritz,
  { bound, settled, degree, linalg }: State & { readonly degree: number; readonly linalg: Linalg },
): Promise<Matrix> {
  const n = G.rows, k = X.cols, half = bound / 2;
  const known = rectangle(X, 0, n, 0, settled);
  const rest = settled === 0 ? G : subtract(
    G,
    await linalg.multiply(scaleColumns(known, values), known, { transB: true }),
  );
  let before = rectangle(X, 0, n, settled, k);
  let now = rectangle(GX, 0, n, settled, k);
  for (let i = 0; i < now.data.length; i++) now.data[i] = now.data[i] / half - before.data[i]; // T_1
  for (let d = 2; d <= degree; d++) {
    const next = await linalg.multiply(rest, now);
    for (let i = 0; i < next.data.length; i++) {
      next.data[i] = 2 * (next.data[i] / half - now.data[i]) - before.data[i];
    }
    [before, now] = [now, next];
  }
  const filtered = matrix(n, k);
  place(filtered, known, 0, 0);
  place(filtered, now, 0, settled);
  return filtered;
}
