import assert from "node:assert/strict";
import fc from "fast-check";
import { type CodeGrid, decode, roundScale } from "../../kernels/packers.ts";
import { type Matrix, matrix, subtract } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { carryFactor } from "./carry_factor.ts";
import { descend } from "./descent.ts";
import { feedback } from "./feedback.ts";
import { clampToGrid, GRIDS } from "./grid.ts";
import { nearest } from "./nearest.ts";
import { roundingMoments, roundMatrix } from "./rounding.ts";

/** f32 rounding of factors of up to 150 columns, relative to entries around 1. */
const F32_TOLERANCE = 1e-4;
/** An objective is evaluated in f64 here, but was lowered in f32. */
const OBJECTIVE_SLACK = 1e-6;

function normal(rows: number, cols: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.normal()));
}

/** X'X / tokens of correlated inputs of very different sizes. */
function moments(n: number, seed: number, dead: readonly number[] = []): Matrix {
  const random = seededRandom(seed), tokens = 2 * n, H = matrix(n, n);
  const size = Float64Array.from({ length: n }, (_, j) => dead.includes(j) ? 0 : Math.exp(random.normal()));
  for (let t = 0; t < tokens; t++) { // twice as many as columns: no damping needed
    const common = random.normal();
    const x = Float64Array.from(size, (s) => s * (common + random.normal()));
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) H.data[i * n + j] += x[i] * x[j] / tokens;
  }
  return H;
}

/** tr E H E', E = W - Q, in f64. */
function objective(W: Matrix, Q: Float32Array, H: Matrix): number {
  const n = W.cols;
  let sum = 0;
  for (let i = 0; i < W.rows; i++) {
    const e = Float64Array.from({ length: n }, (_, j) => W.data[i * n + j] - Q[i * n + j]);
    for (let j = 0; j < n; j++) for (let k = 0; k < n; k++) sum += e[j] * e[k] * H.data[j * n + k];
  }
  return sum;
}

/** Gauss-Jordan in f64. */
function inverse(A: Float64Array, n: number): Float64Array {
  const M = A.slice(), I = new Float64Array(n * n);
  for (let i = 0; i < n; i++) I[i * n + i] = 1;
  for (let p = 0; p < n; p++) {
    const pivot = M[p * n + p];
    for (let j = 0; j < n; j++) {
      M[p * n + j] /= pivot;
      I[p * n + j] /= pivot;
    }
    for (let i = 0; i < n; i++) {
      const f = M[i * n + p];
      if (i === p || f === 0) continue;
      for (let j = 0; j < n; j++) {
        M[i * n + j] -= f * M[p * n + j];
        I[i * n + j] -= f * I[p * n + j];
      }
    }
  }
  return I;
}

/**
 * Optimal brain surgeon as published: round one column, move all that are left by the inverse, remove the column from it.
 * @returns codes
 */
function plainObs(
  W: Matrix,
  H: Matrix,
  { order, scale, grid }: {
    order: Int32Array;
    scale: (row: number, column: number) => number;
    grid: CodeGrid;
  },
): Int8Array {
  const { rows, cols: n } = W, codes = new Int8Array(rows * n);
  const w = Float64Array.from(W.data), I = inverse(Float64Array.from(H.data), n);
  order.forEach((q, position) => {
    const pivot = I[q * n + q];
    for (let i = 0; i < rows; i++) {
      const s = scale(i, q), code = clampToGrid(grid, Math.round(w[i * n + q] / s));
      codes[i * n + q] = code;
      const e = (w[i * n + q] - code * s) / pivot;
      for (const j of order.subarray(position + 1)) w[i * n + j] -= e * I[q * n + j];
    }
    const column = Float64Array.from({ length: n }, (_, i) => I[i * n + q]);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) I[i * n + j] -= column[i] * column[j] / pivot;
    }
  });
  return codes;
}

const grids = fc.constantFrom(...Object.values(GRIDS));

Deno.test("carryFactor() factors the moments in its order, largest first", async () => {
  const linalg = await LinalgRuntime.create(), n = 150, dead = [3, 77];
  const H = moments(n, 1, dead);
  const { order, R } = await carryFactor(H, linalg);
  assert.deepEqual([...order].sort((a, b) => a - b), Array.from({ length: n }, (_, j) => j));
  for (let k = 1; k < n; k++) assert.ok(H.data[order[k - 1] * (n + 1)] >= H.data[order[k] * (n + 1)]);
  // D from the last column on; then every entry must agree.
  const D = new Float64Array(n),
    wanted = (i: number, j: number) => H.data[order[i] * n + order[j]];
  for (let k = n - 1; k >= 0; k--) {
    D[k] = wanted(k, k);
    for (let l = k + 1; l < n; l++) D[k] -= R.data[k * n + l] ** 2 * D[l];
  }
  for (let i = 0; i < n; i++) {
    for (let j = i; j < n; j++) {
      let sum = 0;
      for (let k = j; k < n; k++) sum += R.data[i * n + k] * D[k] * R.data[j * n + k];
      const size = Math.sqrt(wanted(i, i) * wanted(j, j)) + 1e-30;
      assert.ok(Math.abs(sum - wanted(i, j)) <= F32_TOLERANCE * size, `${i}, ${j}: ${sum}`);
      if (j < i) assert.equal(R.data[i * n + j], 0);
    }
  }
  await linalg.close();
});

Deno.test("feedback() chooses the codes of plain column-by-column OBS", async () => {
  const linalg = await LinalgRuntime.create();
  for (const [rows, n, runColumns] of [[5, 40, 64], [7, 150, 64]] as const) {
    const H = moments(n, 2), W = normal(rows, n, 3), grid = GRIDS.int4;
    const carry = await carryFactor(H, linalg);
    const start = nearest(W, { grid, runColumns });
    const { codes } = await feedback(W, start, { carry, grid, linalg });
    const runs = Math.ceil(n / runColumns);
    const scale = (i: number, j: number) => start.scales[i * runs + Math.floor(j / runColumns)];
    const expected = plainObs(W, H, { order: carry.order, scale, grid });
    let different = 0;
    expected.forEach((code, at) => different += +(code !== codes[at]));
    assert.ok(different <= rows, `${different} of ${codes.length} codes differ`); // a near tie changes what follows in its row
  }
  await linalg.close();
});

Deno.test("descend() after feedback() is never worse than rounding to nearest, on any grid", async () => {
  const linalg = await LinalgRuntime.create();
  await fc.assert(
    fc.asyncProperty(
      grids,
      fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 140 })),
      fc.integer({ min: 0, max: 1e6 }),
      async (grid, [rows, n], seed) => {
        const dead = n > 4 ? [1, n - 1] : [];
        const H = moments(n, seed, dead), W = normal(rows, n, seed + 1);
        const start = nearest(W, { grid, runColumns: 64, importance: W.data.subarray(0, n).map(Math.abs) });
        const carry = await carryFactor(H, linalg);
        const fed = await feedback(W, start, { carry, grid, linalg });
        const rounded = objective(W, decode(start), H);
        const slack = OBJECTIVE_SLACK * objective(W, new Float32Array(rows * n), H);
        for (const codes of [start, fed]) {
          const before = objective(W, decode(codes), H);
          const better = await descend(W, codes, { H, grid, linalg });
          const after = objective(W, decode(better), H);
          assert.ok(after <= before + slack, `${after} above ${before}`);
          if (codes === start) assert.ok(after <= rounded + slack);
          assert.ok(better.codes.every((c) => c >= grid.min && c <= grid.max));
          assert.ok(better.scales.every((s) => roundScale(s) === s));
        }
      },
    ),
    { numRuns: 25 },
  );
  await linalg.close();
});

Deno.test("feedback and descent each take a good part off the error of correlated inputs", async () => {
  const linalg = await LinalgRuntime.create(), n = 192, grid = GRIDS.int4;
  const H = moments(n, 5), W = normal(24, n, 6);
  const start = nearest(W, { grid, runColumns: 64 });
  const carry = await carryFactor(H, linalg);
  const fed = await feedback(W, start, { carry, grid, linalg });
  const better = await descend(W, fed, { H, grid, linalg });
  const [a, b, c] = [start, fed, better].map((codes) => objective(W, decode(codes), H));
  assert.ok(b < 0.8 * a && c < 0.97 * b, `${a}, ${b}, ${c}`);
  await linalg.close();
});

Deno.test("a mask keeps its codes at 0, and descent makes kept entries pay for dropped ones", async () => {
  const linalg = await LinalgRuntime.create(), n = 130, rows = 6, grid = GRIDS.int8;
  const H = moments(n, 7), T = normal(rows, n, 8), random = seededRandom(9);
  const mask = Uint8Array.from({ length: rows * n }, () => +(random.next() < 0.5));
  const S = matrix(rows, n, T.data.map((x, at) => mask[at] * x));
  const carry = await carryFactor(H, linalg);
  const fed = await feedback(S, nearest(S, { grid, runColumns: 128 }), { carry, grid, mask, linalg });
  const better = await descend(T, fed, { H, grid, mask, linalg });
  for (const { codes } of [fed, better]) codes.forEach((c, at) => assert.ok(mask[at] === 1 || c === 0));
  assert.ok(objective(T, decode(better), H) < 0.9 * objective(T, decode(fed), H));
  await linalg.close();
});

Deno.test("zero weights, a run without a scale and tiny layers have codes", async () => {
  const linalg = await LinalgRuntime.create(), grid = GRIDS.int2;
  for (
    const W of [matrix(3, 65), matrix(1, 1, Float32Array.of(-2)), matrix(1, 2, Float32Array.of(1e-45, 0))]
  ) {
    const H = moments(W.cols, 1);
    const start = nearest(W, { grid, runColumns: 64 });
    const fed = await feedback(W, start, { carry: await carryFactor(H, linalg), grid, linalg });
    const better = await descend(W, fed, { H, grid, linalg });
    assert.ok(subtract(W, matrix(W.rows, W.cols, decode(better))).data.every(Number.isFinite));
  }
  await linalg.close();
});

Deno.test("roundMatrix() with moments is never worse for any row, with fewer tokens than columns too", async () => {
  const linalg = await LinalgRuntime.create(), n = 90, rows = 12, random = seededRandom(11);
  const x = Float64Array.from({ length: 30 * n }, () => random.normal()), H = matrix(n, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let t = 0; t < 30; t++) H.data[i * n + j] += x[t * n + i] * x[t * n + j] / 30;
    }
  }
  const W = normal(rows, n, 12), moments = await roundingMoments(H, linalg);
  for (const grid of [GRIDS.int8, GRIDS.int3]) {
    const fed = decode(await roundMatrix(W, { grid, runColumns: 64, moments, linalg }));
    const plain = decode(await roundMatrix(W, { grid, runColumns: 64, moments: null, linalg }));
    for (let i = 0; i < rows; i++) {
      const row = (values: Float32Array) => values.slice(i * n, (i + 1) * n);
      const only = matrix(1, n, row(W.data) as Float32Array<ArrayBuffer>);
      const [a, b] = [fed, plain].map((values) => objective(only, row(values), moments.H));
      assert.ok(a < b, `row ${i}: ${a} against ${b}`);
    }
  }
  await linalg.close();
});
