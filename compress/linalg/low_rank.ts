/** Best approximations of low rank: exact, and one step at a time. */
import { orthonormalise, symmetricEigen } from "./factor.ts";
import { type Matrix, matrix } from "./matrix.ts";
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

/** Best rank-r approximation U V of M, U or V' orthonormal, through the eigenvectors of the smaller Gram matrix. */
export async function truncatedSvd(M: Matrix, rank: number, linalg: Linalg): Promise<Factors> {
  const wide = M.rows < M.cols, n = Math.min(M.rows, M.cols);
  const gram = await linalg.multiply(M, M, wide ? { transB: true } : { transA: true });
  const { vectors } = symmetricEigen(gram.data, n); // ascending, as rows
  const top = matrix(rank, n, Float32Array.from(vectors.subarray((n - rank) * n)));
  if (!wide) return { U: await linalg.multiply(M, top, { transB: true }), V: top };
  const V = await linalg.multiply(top, M);
  const U = matrix(n, rank);
  for (let i = 0; i < n; i++) for (let j = 0; j < rank; j++) U.data[i * rank + j] = top.data[j * n + i];
  return { U, V };
}
