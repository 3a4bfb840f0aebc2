/**
 * How a matrix's singular values are spread: all of them for small matrices; for others the largest ones and, for the
 * rest, stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017) with the largest taken out first, as Hutch++ does
 * (Meyer et al. 2021): an estimate may count a direction half or twice, which must not happen to the one that holds most
 * of the energy. A [1536, 576] layer takes 4 % of the time its compression by the default recipe takes; tridiagonalising its Gram matrix took
 * 12 % and grows with the cube.
 */
import { ENERGY_SHARES, type Spectrum, SPECTRUM_STEPS } from "../../models/formats/insight_file.ts";
import { orthonormalise, symmetricEigen } from "../linalg/factor.ts";
import { energy, type Matrix, matrix, scaleColumns, subtract, transpose } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";

/** Up to this short side all singular values: 15 ms. */
const EXACT_SIDE = 128;
/** Directions taken out, the columns that find them, and the steps of subspace iteration. */
const TOP = 8, TOP_COLUMNS = 16, TOP_ITERATIONS = 4;
/** Lanczos steps; nodes of the quadrature of each probe. */
const STEPS = 32;
/** Probes times short side: the noise of a share is about 1 / √ of it, 2 %. */
const PROBE_ENTRIES = 4096, MIN_PROBES = 4, MAX_PROBES = 16;
/** A Lanczos vector shorter than this share of the matrix is rounding: the probe's space is exhausted. */
const EXHAUSTED = 1e-6;

/** A singular value and how many of the matrix's it stands for. */
export interface WeightedValue {
  readonly value: number;
  readonly weight: number;
}

/** A matrix, its long side first, and its transpose: products with a few columns are fastest from the left. */
interface Both {
  /** `[m, n]`, m >= n */
  readonly A: Matrix;
  readonly At: Matrix;
}

/** @returns falling; the weights add up to min(rows, cols) */
export async function singularValues(
  M: Matrix,
  linalg: Linalg,
): Promise<{ readonly method: Spectrum["method"]; readonly values: readonly WeightedValue[] }> {
  const size = Math.sqrt(energy(M)), side = Math.min(M.rows, M.cols);
  if (size === 0) return { method: "exact", values: [{ value: 0, weight: side }] };
  const unit = scaleColumns(M, new Float64Array(M.cols).fill(1 / size)); // squares of huge or tiny weights would leave f32
  const other = transpose(unit);
  const both = M.rows >= M.cols ? { A: unit, At: other } : { A: other, At: unit };
  const scaled = (values: readonly WeightedValue[]) =>
    values.map(({ value, weight }) => ({ value: value * size, weight })).sort((a, b) => b.value - a.value);
  if (side <= EXACT_SIDE) return { method: "exact", values: scaled(exactValues(both.A)) };
  const top = await largestDirections(both, linalg);
  const rest = await restValues(both, top.directions, linalg);
  return {
    method: "sketch",
    values: scaled([...top.values.map((value) => ({ value, weight: 1 })), ...rest]),
  };
}

/** From the eigenvalues of A'A in f64. */
function exactValues({ rows, cols: n, data }: Matrix): WeightedValue[] {
  const gram = new Float64Array(n * n);
  for (let r = 0; r < rows; r++) {
    const row = data.subarray(r * n, (r + 1) * n);
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) gram[i * n + j] += row[i] * row[j];
  }
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) gram[j * n + i] = gram[i * n + j];
  const { values } = symmetricEigen(gram, n);
  return Array.from(values, (x) => ({ value: Math.sqrt(Math.max(0, x)), weight: 1 }));
}

/** The largest singular values of A `[m, n]`, falling, and their right singular vectors `[n, TOP]`, by subspace iteration. */
async function largestDirections({ A, At }: Both, linalg: Linalg) {
  const random = seededRandom(0);
  const start = Float32Array.from({ length: A.cols * TOP_COLUMNS }, () => random.normal());
  let Q = await orthonormalise(matrix(A.cols, TOP_COLUMNS, start), linalg);
  for (let i = 0; i < TOP_ITERATIONS; i++) {
    Q = await orthonormalise(await linalg.multiply(At, await linalg.multiply(A, Q)), linalg);
  }
  const Y = await linalg.multiply(A, Q);
  const { values, vectors } = symmetricEigen(
    (await linalg.multiply(Y, Y, { transA: true })).data,
    TOP_COLUMNS,
  );
  const rotation = matrix(
    TOP,
    TOP_COLUMNS,
    Float32Array.from(vectors.subarray((TOP_COLUMNS - TOP) * TOP_COLUMNS)),
  );
  return {
    values: Array.from(values.subarray(TOP_COLUMNS - TOP), (x) => Math.sqrt(Math.max(0, x))).reverse(),
    directions: await linalg.multiply(Q, rotation, { transB: true }),
  };
}

/** Nodes of the quadrature of A (I - T T'), for A of size 1, whose weights add up to n - TOP. */
async function restValues(both: Both, T: Matrix, linalg: Linalg): Promise<WeightedValue[]> {
  const n = both.A.cols, probes = Math.min(MAX_PROBES, Math.max(MIN_PROBES, Math.ceil(PROBE_ENTRIES / n)));
  const random = seededRandom(1);
  const start = matrix(n, probes, Float32Array.from({ length: n * probes }, () => random.below(2) ? 1 : -1));
  const { alpha, beta } = await bidiagonalise(both, { start, T, linalg });
  const nodes: WeightedValue[] = [];
  for (let p = 0; p < probes; p++) {
    const { values, vectors } = symmetricEigen(tridiagonal(alpha, beta, p), STEPS);
    values.forEach((x, i) => {
      const weight = vectors[i * STEPS] ** 2 * (n - TOP) / probes;
      nodes.push({ value: Math.sqrt(Math.max(0, x)), weight });
    });
  }
  return nodes;
}

interface Bidiagonal {
  /** `[STEPS][probes]`: the diagonal and what stands above it. */
  readonly alpha: readonly Float64Array[];
  readonly beta: readonly Float64Array[];
}

/** Golub-Kahan: A V = U B, a recurrence of its own for each column of `start`. */
async function bidiagonalise(
  { A, At }: Both,
  { start, T, linalg }: { readonly start: Matrix; readonly T: Matrix; readonly linalg: Linalg },
): Promise<Bidiagonal> {
  const probes = start.cols;
  const alpha: Float64Array[] = [], beta: Float64Array[] = [];
  // Rounding brings the largest directions back; so they are taken out in every step.
  const project = async (V: Matrix) =>
    subtract(V, await linalg.multiply(T, await linalg.multiply(T, V, { transA: true })));
  let V = await project(start), U = matrix(A.rows, probes);
  normalise(V);
  for (let k = 0; k < STEPS; k++) {
    const Y = await linalg.multiply(A, V);
    if (k > 0) subtractColumns(Y, U, beta[k - 1]);
    alpha.push(normalise(Y));
    U = Y;
    const Z = await linalg.multiply(At, U);
    subtractColumns(Z, V, alpha[k]);
    V = await project(Z);
    beta.push(normalise(V));
  }
  return { alpha, beta };
}

/** B'B of one probe, `[STEPS, STEPS]`. */
function tridiagonal(
  alpha: readonly Float64Array[],
  beta: readonly Float64Array[],
  probe: number,
): Float64Array {
  const M = new Float64Array(STEPS * STEPS);
  for (let i = 0; i < STEPS; i++) {
    M[i * STEPS + i] = alpha[i][probe] ** 2 + (i > 0 ? beta[i - 1][probe] ** 2 : 0);
    if (i + 1 === STEPS) continue;
    M[i * STEPS + i + 1] = M[(i + 1) * STEPS + i] = alpha[i][probe] * beta[i][probe];
  }
  return M;
}

/** M - N diag(factors), in place. */
function subtractColumns(M: Matrix, N: Matrix, factors: Float64Array): void {
  const { rows, cols } = M;
  for (let i = 0, at = 0; i < rows; i++) {
    for (let c = 0; c < cols; c++, at++) M.data[at] -= factors[c] * N.data[at];
  }
}

/** Columns to length 1, in place; those that are rounding become 0. @returns their lengths, 0 for the latter */
function normalise({ rows, cols, data }: Matrix): Float64Array {
  const lengths = new Float64Array(cols);
  for (let i = 0, at = 0; i < rows; i++) {
    for (let c = 0; c < cols; c++, at++) lengths[c] += data[at] * data[at];
  }
  for (let c = 0; c < cols; c++) {
    const length = Math.sqrt(lengths[c]);
    lengths[c] = length > EXHAUSTED ? length : 0;
  }
  for (let i = 0, at = 0; i < rows; i++) {
    for (let c = 0; c < cols; c++, at++) data[at] = lengths[c] > 0 ? data[at] / lengths[c] : 0;
  }
  return lengths;
}

/** @param rank columns of L, 0 without it */
export async function spectrumOf(A: Matrix, rank: number, linalg: Linalg): Promise<Spectrum> {
  const { method, values } = await singularValues(A, linalg);
  const largest = values[0].value, side = Math.min(A.rows, A.cols);
  return {
    method,
    largest,
    quantiles: Array.from(
      { length: SPECTRUM_STEPS + 1 },
      (_, i) => largest > 0 ? valueAt(values, i / SPECTRUM_STEPS * (side - 1) + 0.5) / largest : 0,
    ),
    effectiveRank: effectiveRank(values),
    energy: ENERGY_SHARES.map((share) => energyOf(values, share * side)),
    energyOfRank: rank > 0 ? energyOf(values, rank) : null,
  };
}

/** The value at a position from 0 to n, linear between the middles of what each weight covers. */
function valueAt(values: readonly WeightedValue[], position: number): number {
  let end = 0, middle = 0, before = values[0].value;
  for (const { value, weight } of values) {
    const next = end + weight / 2;
    if (next >= position) {
      return next > middle ? before + (value - before) * (position - middle) / (next - middle) : value;
    }
    [middle, before, end] = [next, value, end + weight];
  }
  return before;
}

/** Share of the energy in the largest `count`. */
function energyOf(values: readonly WeightedValue[], count: number): number {
  let left = count, inside = 0, all = 0;
  for (const { value, weight } of values) {
    const taken = Math.min(left, weight);
    inside += taken * value * value;
    all += weight * value * value;
    left -= taken;
  }
  return all > 0 ? Math.min(1, inside / all) : 0;
}

function effectiveRank(values: readonly WeightedValue[]): number {
  const all = values.reduce((sum, { value, weight }) => sum + weight * value * value, 0);
  if (all === 0) return 0;
  let entropy = 0;
  for (const { value, weight } of values) {
    const p = value * value / all;
    if (p > 0) entropy -= weight * p * Math.log(p);
  }
  return Math.exp(entropy);
}
