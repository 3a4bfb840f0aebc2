/** Best approximations of low rank: exact, and one step at a time. */
import { orthonormalise, symmetricEigen } from "./factor.ts";
import { leadingEigenvectors } from "./leading_eigen.ts";
import { type Matrix, matrix, rectangle, transpose } from "./matrix.ts";
import type { Linalg } from "./runtime.ts";

/** U V */
export interface Factors {
  /** `[m, r]` */
  readonly U: Matrix;
  /** `[r, n]` */
  readonly V: Matrix;
}

/** One step of subspace iteration for the rows' space of M, from the basis V `[r, dIn]`. */
export async function subspaceStep(M: Matrix, V: Matrix, linalg: Linalg): Promise<Factors> {
  const U = await orthonormalise(await linalg.multiply(M, V, { transB: true }), linalg);
  return { U, V: await linalg.multiply(U, M, { transA: true }) };
}

/** The best approximation, and what the next one may start from. */
export interface BestFactors extends Factors {
  /** `[min(m, n), r or more]`, orthonormal: the first r columns are the left (M wide) or right singular vectors. */
  readonly basis: Matrix;
}

/**
 * Best rank-r approximation U V of M, U or V' orthonormal, through the leading eigenvectors of the smaller Gram matrix.
 * ||M - U V||² is within 1e-5 of the least, and 1e-7 ||M||²: the Gram matrix has f32 entries, so singular values below
 * 1/2000 of the largest are lost in rounding.
 *
 * @param rank r, at most either side of M
 * @param start the `basis` of a matrix of this shape and close to M; saves two thirds of a step of [1536, 576]
 */
export async function truncatedSvd(
  M: Matrix,
  rank: number,
  linalg: Linalg,
  start: Matrix | null = null,
): Promise<BestFactors> {
  const wide = M.rows < M.cols;
  const gram = await linalg.multiply(M, M, wide ? { transB: true } : { transA: true });
  const basis = await leadingEigenvectors(gram, rank, { linalg, start }) ?? allEigenvectors(gram, rank);
  const top = rectangle(basis, 0, basis.rows, 0, rank);
  return wide
    ? { U: top, V: await linalg.multiply(top, M, { transA: true }), basis }
    : { U: await linalg.multiply(M, top), V: transpose(top), basis };
}

/** The vectors `[n, rank]` of the largest eigenvalues of G, which is diagonalised whole: 2 s for [576, 576]. */
function allEigenvectors({ rows: n, data }: Matrix, rank: number): Matrix {
  const { vectors } = symmetricEigen(data, n), top = matrix(n, rank);
  for (let j = 0, from = (n - 1) * n; j < rank; j++, from -= n) {
    for (let i = 0; i < n; i++) top.data[i * rank + j] = vectors[from + i];
  }
  return top;
}
