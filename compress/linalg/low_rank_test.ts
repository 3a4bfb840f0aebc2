/** Best approximations of low rank against SVDs in f64. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../models/open.ts";
import { seededRandom } from "../random.ts";
import { householder, symmetricEigen } from "./factor.ts";
import { leadingEigenvectors } from "./leading_eigen.ts";
import { truncatedSvd } from "./low_rank.ts";
import { energy, type Matrix, matrix, scaleColumns, transpose } from "./matrix.ts";
import { type Linalg, LinalgRuntime } from "./runtime.ts";

/** What truncatedSvd() promises: squared error over the least, and over the matrix (its Gram matrix is f32). */
const OVER_LEAST = 1e-5, OVER_ENERGY = 1e-7;
/** Bases are orthonormal up to f32 sums of up to 200 products. */
const ORTHONORMAL = 1e-5;

function normal(rows: number, cols: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.normal()));
}

/** A B in f64. */
function product(A: Matrix, B: Matrix): Float64Array {
  const out = new Float64Array(A.rows * B.cols);
  for (let i = 0; i < A.rows; i++) {
    for (let k = 0; k < A.cols; k++) {
      const a = A.data[i * A.cols + k];
      for (let j = 0; j < B.cols; j++) out[i * B.cols + j] += a * B.data[k * B.cols + j];
    }
  }
  return out;
}

/** A matrix with these singular values. */
function withSpectrum([m, n]: readonly [number, number], size: (i: number) => number, seed: number): Matrix {
  const r = Math.min(m, n), values = Float64Array.from({ length: r }, (_, i) => size(i));
  const U = householder(normal(m, r, seed)), V = householder(normal(n, r, seed + 1));
  return matrix(m, n, Float32Array.from(product(scaleColumns(U, values), transpose(V))));
}

/** The least ||M - L||² for L of this rank. */
function leastError(M: Matrix, rank: number): number {
  const [short, long] = M.rows < M.cols ? [M, transpose(M)] : [transpose(M), M];
  const { values } = symmetricEigen(product(short, long), short.rows);
  return values.subarray(0, short.rows - rank).reduce((sum, x) => sum + Math.max(0, x), 0);
}

async function assertBest(M: Matrix, rank: number, linalg: Linalg, start: Matrix | null = null) {
  const { U, V, basis } = await truncatedSvd(M, rank, linalg, start);
  assert.deepEqual([U.rows, U.cols, V.rows, V.cols], [M.rows, rank, rank, M.cols]);
  const inner = product(transpose(basis), basis);
  inner.forEach((x, at) =>
    assert.ok(Math.abs(x - +(at % (basis.cols + 1) === 0)) < ORTHONORMAL, `${at}: ${x}`)
  );
  const error = product(U, V).reduce((sum, x, at) => sum + (x - M.data[at]) ** 2, 0);
  const allowed = (1 + OVER_LEAST) * leastError(M, rank) + OVER_ENERGY * energy(M);
  assert.ok(error <= allowed, `${error} is above ${allowed}`);
  return basis;
}

const SPECTRA: Readonly<Record<string, (i: number) => number>> = {
  "decaying": (i) => 1 / (1 + i),
  "all equal": () => 1,
  "repeated in fives": (i) => 0.8 ** Math.floor(i / 5),
  "a cluster across the rank": (i) => i < 8 ? 3 : i < 40 ? 1 + 1e-4 * (40 - i) : 0.2,
  "one far above the rest": (i) => i === 0 ? 300 : 1 / (1 + i / 50),
  "rank 5": (i) => i < 5 ? 5 - i : 0,
  "rank 5 and little noise": (i) => i < 5 ? 5 - i : 1e-3,
};
for (const [name, size] of Object.entries(SPECTRA)) {
  Deno.test(`truncatedSvd() is the best approximation: singular values ${name}`, async () => {
    const linalg = await LinalgRuntime.create();
    for (const shape of [[90, 130], [130, 90]] as const) {
      const M = withSpectrum(shape, size, 1);
      for (const rank of [1, 12, 24]) await assertBest(M, rank, linalg);
    }
    await linalg.close();
  });
}

Deno.test("truncatedSvd() is the best approximation of noise, and of small or nearly whole matrices", async () => {
  const linalg = await LinalgRuntime.create();
  for (const [m, n] of [[1, 1], [1, 7], [3, 2], [40, 20], [100, 70], [70, 200]] as const) {
    const M = normal(m, n, m), most = Math.min(m, n);
    for (const rank of new Set([1, Math.ceil(most / 5), most - 1, most].filter((r) => r > 0))) {
      await assertBest(M, rank, linalg);
    }
  }
  await linalg.close();
});

Deno.test("truncatedSvd() of zeros is zero, its basis orthonormal", async () => {
  const linalg = await LinalgRuntime.create();
  for (const [m, n] of [[4, 4], [90, 130], [130, 90]]) await assertBest(matrix(m, n), 2, linalg);
  await linalg.close();
});

/** Counts products. */
class Counting implements Linalg {
  products = 0;
  constructor(readonly linalg: Linalg) {}
  multiply(...args: Parameters<Linalg["multiply"]>) {
    this.products++;
    return this.linalg.multiply(...args);
  }
}

Deno.test("truncatedSvd() starts from the basis of a matrix close by, and finds what that basis lacks", async () => {
  const runtime = await LinalgRuntime.create(), linalg = new Counting(runtime);
  const count = async (M: Matrix, start: Matrix | null) => {
    linalg.products = 0;
    const basis = await assertBest(M, 12, linalg, start);
    return { basis, products: linalg.products };
  };
  const M = withSpectrum([150, 120], (i) => 0.9 ** i, 3);
  const cold = await count(M, null);
  const noise = normal(150, 120, 5);
  const close = matrix(150, 120, M.data.map((x, at) => x + 1e-4 * noise.data[at]));
  const warm = await count(close, cold.basis);
  assert.ok(
    warm.products < 0.7 * cold.products,
    `${warm.products} products, ${cold.products} without a start`,
  );
  const last = householder(normal(120, 40, 7)); // all that the basis knows are the smallest ones' vectors
  const G = matrix(120, 120, Float32Array.from(product(transpose(M), M)));
  const { vectors } = symmetricEigen(G.data, 120);
  for (let i = 0; i < 120; i++) for (let j = 0; j < 40; j++) last.data[i * 40 + j] = vectors[j * 120 + i];
  await count(M, last);
  await runtime.close();
});

Deno.test("leadingEigenvectors() leaves to a factorisation what it has no advantage in", async () => {
  const linalg = await LinalgRuntime.create();
  const gram = (M: Matrix) => linalg.multiply(M, M, { transA: true });
  assert.equal(await leadingEigenvectors(await gram(normal(60, 60, 1)), 2, { linalg }), null); // small
  const G = await gram(withSpectrum([100, 100], (i) => 0.9 ** i, 1));
  assert.equal(await leadingEigenvectors(G, 40, { linalg }), null); // most of its vectors
  assert.equal((await leadingEigenvectors(G, 10, { linalg }))?.rows, 100);
  G.data.fill(NaN);
  assert.equal(await leadingEigenvectors(G, 10, { linalg }), null);
  await linalg.close();
});

/** Lies beside the repository on development machines only. */
const SMOLLM2 = new URL("../../../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url).pathname;
const present = await Deno.stat(SMOLLM2).then(() => true, () => false);

Deno.test({
  name: "truncatedSvd() is the best approximation of a real layer (needs SmolLM2 in ../shared/models)",
  ignore: !present,
  fn: async () => {
    const linalg = await LinalgRuntime.create();
    const checkpoint = await openCheckpoint(SMOLLM2);
    const { data, shape: [rows, cols] } = await checkpoint.read("block.1.v");
    const W = matrix(rows, cols, data);
    const basis = await assertBest(W, 18, linalg);
    assert.ok(basis.cols > 18, "not by a factorisation");
    const rest = matrix(rows, cols, data.map((x) => Math.abs(x) > 0.1 ? 0 : x)); // as after a step of OATS
    await assertBest(rest, 18, linalg, basis);
    checkpoint.close();
    await linalg.close();
  },
});
