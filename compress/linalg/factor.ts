/** Factorisations of small matrices in plain f64 code: everything here is too small or too rare for ONNX Runtime. */
import type { Matrix } from "./matrix.ts";
import type { Linalg } from "./runtime.ts";

/**
 * Lower triangle C of G = C C'.
 *
 * @param G `[n, n]`, symmetric
 * @returns `[n, n]`; null when G is not positive definite or a pivot is below `minimumPivot`
 */
export function cholesky(G: ArrayLike<number>, n: number, minimumPivot = 0): Float64Array | null {
  const C = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = G[i * n + j];
      for (let k = 0; k < j; k++) sum -= C[i * n + k] * C[j * n + k];
      if (i === j) {
        if (!(sum > minimumPivot)) return null;
        C[i * n + i] = Math.sqrt(sum);
      } else C[i * n + j] = sum / C[j * n + j];
    }
  }
  return C;
}

/** Inverse of a lower triangle `[n, n]`, again a lower triangle. */
export function invertLowerTriangle(C: Float64Array, n: number): Float64Array {
  const inverse = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const row = inverse.subarray(i * n, i * n + i + 1);
    for (let k = 0; k < i; k++) {
      const c = C[i * n + k];
      for (let j = 0; j <= k; j++) row[j] -= c * inverse[k * n + j];
    }
    for (let j = 0; j < i; j++) row[j] /= C[i * n + i];
    row[i] = 1 / C[i * n + i];
  }
  return inverse;
}

/** Squared pivots below this (columns of unit length) are lost to f32 rounding: then Householder takes over. */
const MINIMUM_PIVOT = 1e-5;

/**
 * An orthonormal basis Q `[m, n]` (m >= n) of the columns of Y: Cholesky-QR done twice (its products run at GEMM
 * speed: 1 ms instead of 16 ms for [1536, 73]), Householder when Y is too close to rank deficient for it.
 */
export async function orthonormalise(Y: Matrix, linalg: Linalg): Promise<Matrix> {
  let Q = Y;
  const n = Y.cols;
  for (let pass = 0; pass < 2; pass++) {
    const G = (await linalg.multiply(Q, Q, { transA: true })).data;
    const s = Float64Array.from({ length: n }, (_, i) => 1 / Math.sqrt(G[i * n + i]));
    const unit = Float64Array.from(G, (g, at) => g * s[Math.floor(at / n)] * s[at % n]);
    const C = cholesky(unit, n, MINIMUM_PIVOT);
    if (!C) return householder(Y);
    const inverse = invertLowerTriangle(C, n);
    const T = new Float32Array(n * n); // Q T is orthonormal: T = diag(s) C'^-1
    for (let i = 0; i < n; i++) for (let j = i; j < n; j++) T[i * n + j] = s[i] * inverse[j * n + i];
    Q = await linalg.multiply(Q, { rows: n, cols: n, data: T });
  }
  return Q;
}

/** The Q `[m, n]` of a Householder QR in f64; orthonormal even when Y is rank deficient. */
export function householder(Y: Matrix): Matrix {
  const { rows: m, cols: n } = Y;
  const columns = Array.from(
    { length: n },
    (_, j) => Float64Array.from({ length: m }, (_, i) => Y.data[i * n + j]),
  );
  const reflectors = columns.map((x, k) => { // v of I - 2 v v' (v'v = 1), zero above k
    let norm = 0;
    for (let i = k; i < m; i++) norm += x[i] * x[i];
    norm = Math.sqrt(norm);
    const v = new Float64Array(m);
    for (let i = k; i < m; i++) v[i] = x[i];
    v[k] += x[k] < 0 ? -norm : norm;
    let length = 0;
    for (let i = k; i < m; i++) length += v[i] * v[i];
    if (length > 0) { for (let i = k; i < m; i++) v[i] /= Math.sqrt(length); }
    for (let j = k + 1; j < n; j++) reflect(columns[j], v, k);
    return v;
  });
  const Q = new Float32Array(m * n);
  for (let j = 0; j < n; j++) {
    const q = new Float64Array(m);
    q[j] = 1;
    for (let k = n - 1; k >= 0; k--) reflect(q, reflectors[k], k);
    for (let i = 0; i < m; i++) Q[i * n + j] = q[i];
  }
  return { rows: m, cols: n, data: Q };
}

/** x - 2 v (v'x), v zero before `from`. */
function reflect(x: Float64Array, v: Float64Array, from: number): void {
  let dot = 0;
  for (let i = from; i < x.length; i++) dot += v[i] * x[i];
  dot *= 2;
  for (let i = from; i < x.length; i++) x[i] -= dot * v[i];
}

export interface Eigen {
  /** Ascending. */
  readonly values: Float64Array;
  /** `[n, n]`: row i belongs to values[i]. */
  readonly vectors: Float64Array;
}

/**
 * Eigenvalues and vectors of a symmetric matrix: Householder tridiagonalisation, then implicit QL
 * (EISPACK tred2 and tql2), with the vectors kept as rows so that the inner loops are contiguous.
 *
 * @param A `[n, n]`
 */
export function symmetricEigen(A: ArrayLike<number>, n: number): Eigen {
  const { diagonal, offDiagonal, vectors } = tridiagonalise(Float64Array.from(A), n);
  implicitQl(diagonal, offDiagonal, vectors, n);
  const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[a] - diagonal[b]);
  const sorted = new Float64Array(n * n);
  order.forEach((from, to) => sorted.set(vectors.subarray(from * n, (from + 1) * n), to * n));
  return { values: Float64Array.from(order, (i) => diagonal[i]), vectors: sorted };
}

/** Q A Q' = tridiagonal; `vectors` holds Q's rows. A is overwritten. */
function tridiagonalise(A: Float64Array, n: number) {
  const diagonal = new Float64Array(n), offDiagonal = new Float64Array(n);
  const reflectors: Float64Array[] = [];
  for (let k = 0; k < n - 2; k++) {
    const v = new Float64Array(n);
    let norm = 0;
    for (let i = k + 1; i < n; i++) norm += A[k * n + i] ** 2;
    norm = Math.sqrt(norm);
    for (let i = k + 1; i < n; i++) v[i] = A[k * n + i];
    const head = v[k + 1] < 0 ? -norm : norm;
    v[k + 1] += head;
    offDiagonal[k] = -head;
    let length = 0;
    for (let i = k + 1; i < n; i++) length += v[i] * v[i];
    if (length > 0) {
      length = 1 / Math.sqrt(length);
      for (let i = k + 1; i < n; i++) v[i] *= length;
      rankTwoUpdate(A, v, k + 1, n);
    }
    reflectors.push(v);
  }
  for (let i = 0; i < n; i++) diagonal[i] = A[i * n + i];
  if (n > 1) offDiagonal[n - 2] = A[(n - 2) * n + n - 1];
  const vectors = new Float64Array(n * n);
  for (let i = 0; i < n; i++) vectors[i * n + i] = 1;
  for (let k = reflectors.length - 1; k >= 0; k--) { // rows of Q' P_k ... : apply from the right to the trailing part
    for (let i = k + 1; i < n; i++) reflect(vectors.subarray(i * n, (i + 1) * n), reflectors[k], k + 1);
  }
  return { diagonal, offDiagonal, vectors };
}

/** A <- P A P with P = I - 2 v v' on rows and columns from `from`. */
function rankTwoUpdate(A: Float64Array, v: Float64Array, from: number, n: number): void {
  const p = new Float64Array(n);
  let K = 0;
  for (let i = from; i < n; i++) {
    let sum = 0;
    for (let j = from; j < n; j++) sum += A[i * n + j] * v[j];
    p[i] = 2 * sum;
    K += v[i] * p[i];
  }
  for (let i = from; i < n; i++) p[i] -= K * v[i];
  for (let i = from; i < n; i++) {
    const vi = v[i], pi = p[i];
    for (let j = from; j < n; j++) A[i * n + j] -= vi * p[j] + pi * v[j];
  }
}

/** Diagonalises the tridiagonal (d, e) by QL with implicit shifts, rotating the rows of V along. */
function implicitQl(d: Float64Array, e: Float64Array, V: Float64Array, n: number): void {
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; iteration < 60; iteration++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]) > Number.EPSILON * (Math.abs(d[m]) + Math.abs(d[m + 1]))) m++;
      if (m === l) break;
      let g = (d[l + 1] - d[l]) / (2 * e[l]);
      const r = Math.hypot(g, 1);
      g = d[m] - d[l] + e[l] / (g + (g < 0 ? -r : r));
      let s = 1, c = 1, p = 0, i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i], b = c * e[i], length = Math.sqrt(f * f + g * g);
        e[i + 1] = length;
        if (length === 0) {
          d[i + 1] -= p;
          e[m] = 0;
          break;
        }
        s = f / length;
        c = g / length;
        g = d[i + 1] - p;
        const t = (d[i] - g) * s + 2 * c * b;
        p = s * t;
        d[i + 1] = g + p;
        g = c * t - b;
        rotate(V, i * n, n, c, s);
      }
      if (i >= l) continue;
      d[l] -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}

/** Rotates the rows at `at` and `at + n`. */
function rotate(V: Float64Array, at: number, n: number, c: number, s: number): void {
  for (let k = at; k < at + n; k++) {
    const f = V[k + n], g = V[k];
    V[k + n] = s * g + c * f;
    V[k] = c * g - s * f;
  }
}
