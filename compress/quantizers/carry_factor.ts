/** What rounding errors carry from column to column: a triangular factor of the inputs' second moments. */
import { cholesky } from "../linalg/factor.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";

/** Columns factored at once in f64; the rest is updated by one product. */
const PANEL = 64;

export interface CarryFactor {
  /** `[n]`: the column that the sweep treats k-th. */
  readonly order: Int32Array<ArrayBuffer>;
  /** `[n, n]`, unit upper triangular, in that order: P H P' = R D R'. */
  readonly R: Matrix;
}

/**
 * An error row e weighs e H e' = Σ_k D_k (e_k + Σ_{j<k} e_j R_jk)², so column k is best rounded after adding what the
 * columns before it left. That is the sweep of GPTQ (arXiv 2210.17323) without an inverse; arXiv 2307.13304 (LDLQ) proves
 * them equal. Columns of the largest second moment come first: they have all others to make up for them.
 *
 * @param H `[n, n]`, positive definite but for dead columns (zero diagonal), which neither give nor take
 */
export async function carryFactor(H: Matrix, linalg: Linalg): Promise<CarryFactor> {
  const n = H.rows;
  const weight = Float64Array.from({ length: n }, (_, j) => H.data[j * n + j]);
  const order = Int32Array.from({ length: n }, (_, j) => j).sort((a, b) => weight[b] - weight[a]);
  // Backwards, so that Cholesky's lower factor becomes an upper one; on a unit diagonal, for f32.
  const back = order.toReversed();
  const root = Float64Array.from(back, (column) => Math.sqrt(Math.max(0, weight[column])));
  const A = matrix(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) {
      const size = root[i] * root[j];
      A.data[i * n + j] = size > 0 ? H.data[back[i] * n + back[j]] / size : 0;
    }
    A.data[i * n + i] = 1;
  }
  await choleskyInPlace(A, linalg);
  const R = matrix(n, n);
  for (let j = 0; j < n; j++) {
    const pivot = A.data[j * n + j] * (root[j] || 1);
    for (let i = j; i < n; i++) {
      const at = (n - 1 - i) * n + n - 1 - j; // columns of A become columns of R, from the end
      R.data[at] = i === j ? 1 : A.data[i * n + j] * root[i] / pivot;
    }
  }
  return { order, R };
}

/** Cholesky's lower triangle in place of A's, panel by panel. */
async function choleskyInPlace(A: Matrix, linalg: Linalg): Promise<void> {
  const n = A.rows;
  for (let from = 0; from < n; from += PANEL) {
    const to = Math.min(n, from + PANEL);
    const below = factorPanel(A, from, to);
    if (to === n) return;
    const update = (await linalg.multiply(below, below, { transB: true })).data, rest = n - to;
    for (let i = 0; i < rest; i++) {
      const row = (to + i) * n + to;
      for (let j = 0; j <= i; j++) A.data[row + j] -= update[i * rest + j];
    }
  }
}

/** Factors columns from..to-1; @returns their part below row `to` */
function factorPanel({ rows: n, data }: Matrix, from: number, to: number): Matrix {
  const width = to - from;
  const corner = new Float64Array(width * width);
  for (let i = 0; i < width; i++) {
    for (let j = 0; j <= i; j++) corner[i * width + j] = data[(from + i) * n + from + j];
  }
  const C = cholesky(corner, width);
  if (!C) throw new RangeError(`Cannot factor moments [${n}, ${n}]: not positive definite`);
  const below = matrix(n - to, width);
  for (let i = from; i < n; i++) { // X C' = A
    for (let j = 0; j < width && from + j <= i; j++) {
      let sum = data[i * n + from + j];
      for (let k = 0; k < j; k++) sum -= data[i * n + from + k] * C[j * width + k];
      data[i * n + from + j] = i === from + j ? C[j * width + j] : sum / C[j * width + j];
    }
    if (i >= to) below.data.set(data.subarray(i * n + from, i * n + to), (i - to) * width);
  }
  return below;
}
