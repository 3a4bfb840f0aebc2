import assert from "node:assert/strict";
import { type Matrix, matrix, subtract } from "./linalg/matrix.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import { seededRandom } from "./random.ts";
import { DAMPING, refine, unitMoments } from "./refine.ts";

/** CG in f32 against a direct solution in f64. */
const TOLERANCE = 2e-3;

/** Correlated inputs: H `[n, n]` and its root mean squares. */
function inputs(n: number, seed: number) {
  const random = seededRandom(seed), tokens = 4 * n;
  const H = new Float32Array(n * n);
  for (let t = 0; t < tokens; t++) {
    const shared = random.normal();
    const x = Array.from({ length: n }, (_, j) => (random.normal() + shared) * (1 + j % 5));
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) H[i * n + j] += x[i] * x[j] / tokens;
  }
  return { H, d: Float32Array.from({ length: n }, (_, i) => Math.sqrt(H[i * n + i])) };
}

function quadraticError(E: Matrix, H: Float32Array, d: Float32Array): number {
  let sum = 0;
  const n = E.cols;
  for (let r = 0; r < E.rows; r++) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const h = H[i * n + j] + (i === j ? DAMPING * d[i] * d[i] : 0);
        sum += E.data[r * n + i] * h * E.data[r * n + j];
      }
    }
  }
  return sum;
}

/** Solves G x = b by Gaussian elimination in f64. */
function solve(G: number[][], b: number[]): number[] {
  const n = b.length, M = G.map((row, i) => [...row, b[i]]);
  for (let k = 0; k < n; k++) {
    for (let i = k + 1; i < n; i++) {
      const f = M[i][k] / M[k][k];
      for (let j = k; j <= n; j++) M[i][j] -= f * M[k][j];
    }
  }
  const x = new Array<number>(n);
  for (let i = n - 1; i >= 0; i--) {
    let sum = M[i][n];
    for (let j = i + 1; j < n; j++) sum -= M[i][j] * x[j];
    x[i] = sum / M[i][i];
  }
  return x;
}

function problem(rows: number, n: number) {
  const random = seededRandom(11);
  const W = matrix(rows, n, Float32Array.from({ length: rows * n }, () => random.normal()));
  const mask = Uint8Array.from(W.data, () => +(random.next() < 0.5));
  const S = matrix(rows, n, W.data.map((x, i) => mask[i] ? x : 0));
  return { W, mask, S, ...inputs(n, 12) };
}

Deno.test("refine() solves for the kept values of every row", async () => {
  const linalg = await LinalgRuntime.create();
  const n = 16, { W, mask, S, H, d } = problem(3, n);
  const refined = await refine(W, { S, U: matrix(3, 0), V: matrix(0, n) }, {
    mask,
    moments: unitMoments(d, H),
    linalg,
  });
  for (let r = 0; r < 3; r++) {
    const kept = [...Array(n).keys()].filter((j) => mask[r * n + j]);
    const damped = (i: number, j: number) => H[i * n + j] + (i === j ? DAMPING * d[i] * d[i] : 0);
    const right = kept.map((i) => {
      let sum = 0;
      for (let j = 0; j < n; j++) sum += damped(i, j) * W.data[r * n + j];
      return sum;
    });
    const exact = solve(kept.map((i) => kept.map((j) => damped(i, j))), right);
    kept.forEach((j, k) => assert.ok(Math.abs(refined.S.data[r * n + j] - exact[k]) < TOLERANCE));
    for (let j = 0; j < n; j++) if (!mask[r * n + j]) assert.equal(refined.S.data[r * n + j], 0);
  }
  await linalg.close();
});

Deno.test("refine() lowers the error on the inputs, with L and with a dead column", async () => {
  const linalg = await LinalgRuntime.create();
  const n = 48, { W, mask, S, H, d } = problem(32, n);
  for (let j = 0; j < n; j++) H[j * n + 5] = H[5 * n + j] = 0;
  d[5] = 0;
  const random = seededRandom(13);
  const U = matrix(32, 4, Float32Array.from({ length: 128 }, () => random.normal())), V = matrix(4, n);
  const refined = await refine(W, { S, U, V }, {
    mask,
    moments: unitMoments(d, H),
    linalg,
  });
  const L = await linalg.multiply(refined.U, refined.V);
  const before = quadraticError(subtract(W, S), H, d);
  const after = quadraticError(subtract(subtract(W, refined.S), L), H, d);
  assert.ok(after < 0.6 * before, `${after} against ${before}`);
  assert.ok([...refined.S.data, ...L.data].every(Number.isFinite));
  for (let i = 0; i < 32; i++) assert.equal(refined.S.data[i * n + 5] + L.data[i * n + 5], 0);
  await linalg.close();
});
