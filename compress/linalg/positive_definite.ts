/**
 * Factors of positive definite matrices as large as a layer's input, in blocks: f64 on the diagonal, products of ONNX
 * Runtime (f32) for the rest. [1536, 1536] takes 0.2 s where plain loops take 1.5.
 */
import { cholesky, invertLowerTriangle } from "./factor.ts";
import { type Matrix, matrix, place, rectangle, subtractAt } from "./matrix.ts";
import type { Linalg } from "./runtime.ts";

/** Rows of a diagonal block. */
const BLOCK = 128;

/**
 * Lower triangle C of H = C C'.
 *
 * @param H `[n, n]`, symmetric
 * @returns `[n, n]`; null when H is not positive definite in f32
 */
export async function choleskyFactor(H: Matrix, linalg: Linalg): Promise<Matrix | null> {
  const n = H.rows, rest = matrix(n, n, H.data.slice()), C = matrix(n, n);
  for (let from = 0; from < n; from += BLOCK) {
    const to = Math.min(from + BLOCK, n), size = to - from;
    const diagonal = cholesky(rectangle(rest, from, to, from, to).data, size);
    if (!diagonal) return null;
    place(C, matrix(size, size, Float32Array.from(diagonal)), from, from);
    if (to === n) break;
    const inverse = matrix(size, size, Float32Array.from(invertLowerTriangle(diagonal, size)));
    const panel = await linalg.multiply(rectangle(rest, to, n, from, to), inverse, { transB: true });
    place(C, panel, to, from);
    subtractAt(rest, await linalg.multiply(panel, panel, { transB: true }), to, to);
  }
  return C;
}

/** Inverse of a lower triangle `[n, n]`, again a lower triangle: a block of rows after the other. */
async function invertTriangle(C: Matrix, linalg: Linalg): Promise<Matrix> {
  const n = C.rows, inverse = matrix(n, n);
  for (let from = 0; from < n; from += BLOCK) {
    const to = Math.min(from + BLOCK, n), size = to - from;
    const diagonal = Float64Array.from(rectangle(C, from, to, from, to).data);
    const D = matrix(size, size, Float32Array.from(invertLowerTriangle(diagonal, size)));
    const above = matrix(from, n, inverse.data.subarray(0, from * n));
    const known = await linalg.multiply(rectangle(C, from, to, 0, from), above);
    subtractAt(inverse, await linalg.multiply(D, known), from, 0);
    place(inverse, D, from, from);
  }
  return inverse;
}

/**
 * The upper triangle U of H^-1 = U'U, by which second-order methods sweep over columns. With rows and columns in reverse
 * order it is the inverse of H's Cholesky factor, so H^-1 itself is never formed.
 *
 * @param H `[n, n]`, symmetric
 * @returns `[n, n]`; null when H is not positive definite in f32
 */
export async function inverseFactor(H: Matrix, linalg: Linalg): Promise<Matrix | null> {
  const { rows: n } = H;
  const C = await choleskyFactor(matrix(n, n, H.data.slice().reverse()), linalg);
  if (!C) return null;
  const U = await invertTriangle(C, linalg);
  U.data.reverse();
  return U;
}

/** Largest addition to a diagonal, over the first one: beyond it the matrix holds NaN or infinity. */
const MAX_GROWTH = 1e9;

/**
 * A factor of H, or of H with more on its diagonal where rounding made it indefinite: `step`, then ten times as much each
 * time.
 *
 * @throws {RangeError} when no addition helps: H is not finite
 */
export async function dampedFactor(
  H: Matrix,
  step: number,
  factor: (H: Matrix) => Promise<Matrix | null>,
): Promise<Matrix> {
  for (let extra = 0; extra <= step * MAX_GROWTH; extra = extra === 0 ? step : 10 * extra) {
    const damped = matrix(H.rows, H.cols, H.data.slice());
    for (let i = 0; i < H.rows; i++) damped.data[i * H.cols + i] += extra;
    const found = await factor(damped);
    if (found) return found;
  }
  throw new RangeError(`Cannot factorise moments of [${H.rows}, ${H.cols}]: they are not finite`);
}
