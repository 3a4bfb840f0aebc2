/** Second moments of some inputs, in coordinates where each input has size 1, and the inverse of what they are with damping. */
import { type Matrix, matrix } from "../linalg/matrix.ts";
import { dampedFactor, inverseFactor } from "../linalg/positive_definite.ts";
import type { Linalg } from "../linalg/runtime.ts";

/**
 * Added to the diagonal. Inputs that repeat others keep H positive definite by it, and what is handed on to them is a
 * thousandth too small.
 */
export const DAMPING = 1e-3;

/** Root mean square `[dIn]` of every input, of their moments H `[dIn, dIn]`. */
export function inputSizes(H: Float32Array): Float32Array<ArrayBuffer> {
  const n = Math.sqrt(H.length);
  return Float32Array.from({ length: n }, (_, j) => Math.sqrt(H[j * n + j]));
}

/** H_ij / (d_i d_j) `[rows, cols]` of the inputs named; 0 for dead ones. */
export function unitMoments(H: Float32Array, rows: readonly number[], cols: readonly number[]): Matrix {
  const d = inputSizes(H), n = d.length, out = matrix(rows.length, cols.length);
  const unscale = Float64Array.from(d, (x) => x > 0 ? 1 / x : 0); // in f64: the reciprocals of small ones leave f32
  let at = 0;
  for (const i of rows) for (const j of cols) out.data[at++] = H[i * n + j] * unscale[i] * unscale[j];
  return out;
}

/**
 * The upper triangle U `[n, n]` of (D^-1 H D^-1 + λ)^-1 = U'U, over the inputs named.
 *
 * @param H `[dIn, dIn]`
 * @throws {RangeError} when H is no matrix of second moments
 */
export function dampedInverse(H: Float32Array, inputs: readonly number[], linalg: Linalg): Promise<Matrix> {
  const damped = unitMoments(H, inputs, inputs);
  for (let a = 0; a < inputs.length; a++) damped.data[a * inputs.length + a] += DAMPING;
  return dampedFactor(damped, DAMPING, (some) => inverseFactor(some, linalg));
}
