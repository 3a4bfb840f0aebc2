/** From a matrix to codes: to nearest, or with feedback and descent where the inputs' second moments are at hand. */
import { type CodedMatrix, type CodeGrid, decode, runCount } from "../../kernels/packers.ts";
import { type Matrix, matrix, scale, subtract, unitPower } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { type CarryFactor, carryFactor } from "./carry_factor.ts";
import { descend } from "./descent.ts";
import { feedback } from "./feedback.ts";
import { nearest } from "./nearest.ts";

/**
 * Share of each diagonal entry of H that is added to it, for feedback and descent alike: correlations of few tokens are not
 * to be trusted to the last digit (GPTQ adds 0.01 of their mean).
 */
const DAMPING = 0.01;

/** Second moments of a matrix's inputs, ready for feedback. */
export interface RoundingMoments {
  /** `[dIn, dIn]`, damped. */
  readonly H: Matrix;
  readonly carry: CarryFactor;
}

/**
 * H in a unit of its own (a power of four: its roots stay exact), so that no product with it overflows.
 *
 * @param H `[dIn, dIn]`, positive semidefinite
 */
export async function roundingMoments({ rows: n, data }: Matrix, linalg: Linalg): Promise<RoundingMoments> {
  const sizes = Float32Array.from({ length: n }, (_, i) => Math.sqrt(data[i * n + i]));
  const H = scale(matrix(n, n, data), unitPower(sizes) ** 2);
  for (let at = 0; at < H.data.length; at += n + 1) H.data[at] *= 1 + DAMPING;
  return { H, carry: await carryFactor(H, linalg) };
}

export interface RoundingOptions {
  readonly grid: CodeGrid;
  readonly runColumns: number;
  /** null: every weight alone. */
  readonly moments: RoundingMoments | null;
  /** `[dOut, dIn]`: 0 where nothing is stored. */
  readonly mask?: Uint8Array;
  /** `[dOut, dIn]`, what the codes should stand for where that is not W: errors outside the mask are then made up for. */
  readonly target?: Matrix;
  readonly linalg: Linalg;
}

/**
 * @param W `[dOut, dIn]`, 0 outside the mask
 * @returns codes; with moments no row's error on the inputs is above that of rounding to nearest
 */
export async function roundMatrix(W: Matrix, options: RoundingOptions): Promise<CodedMatrix> {
  const { moments, target = W } = options;
  if (!moments) return nearest(W, { grid: options.grid, runColumns: options.runColumns });
  const power = Math.min(unitPower(W.data), unitPower(target.data)); // squares of weights overflow as well
  const coded = await roundWithMoments(scale(W, power), {
    ...options,
    moments,
    target: scale(target, power),
  });
  return { ...coded, scales: coded.scales.map((x) => x / power) };
}

async function roundWithMoments(
  W: Matrix,
  options: RoundingOptions & { readonly moments: RoundingMoments; readonly target: Matrix },
): Promise<CodedMatrix> {
  const { moments: { H, carry }, grid, runColumns, linalg, target: T } = options;
  const importance = Float32Array.from({ length: H.rows }, (_, j) => H.data[j * H.rows + j]);
  const plain = nearest(W, { grid, runColumns, importance });
  const fed = await feedback(W, plain, { ...options, carry });
  const start = betterRows(
    { coded: fed, errors: await rowErrors(T, fed, H, linalg) },
    { coded: plain, errors: await rowErrors(T, plain, H, linalg) },
  );
  return await descend(T, start, { ...options, H });
}

/** e H e' of every row's error e = T - Q. */
async function rowErrors(T: Matrix, coded: CodedMatrix, H: Matrix, linalg: Linalg): Promise<Float64Array> {
  const E = subtract(T, matrix(T.rows, T.cols, decode(coded))), EH = await linalg.multiply(E, H);
  const errors = new Float64Array(T.rows);
  for (let i = 0, at = 0; i < T.rows; i++) {
    for (let j = 0; j < T.cols; j++, at++) errors[i] += E.data[at] * EH.data[at];
  }
  return errors;
}

interface Measured {
  readonly coded: CodedMatrix;
  readonly errors: Float64Array;
}

/** Row by row the one of less error. */
function betterRows(a: Measured, b: Measured): CodedMatrix {
  const { rows, cols, runColumns } = a.coded, runs = runCount(cols, runColumns);
  const codes = a.coded.codes.slice(), scales = a.coded.scales.slice();
  for (let i = 0; i < rows; i++) {
    if (a.errors[i] <= b.errors[i]) continue;
    codes.set(b.coded.codes.subarray(i * cols, (i + 1) * cols), i * cols);
    scales.set(b.coded.scales.subarray(i * runs, (i + 1) * runs), i * runs);
  }
  return { ...a.coded, codes, scales };
}
