/** SparseGPT against a plain f64 implementation of its published algorithm. */
import assert from "node:assert/strict";
import type { RecipeInput } from "../../models/recipe.ts";
import { killColumns, outcome, relativeError, type TestLayer, testLayer } from "./_test_layers.ts";
import { DAMPING } from "./sparsegpt.ts";

/** f32 products and factors against f64, relative to the largest weight. */
const TOLERANCE = 2e-3;

/** Inverse by Gauss-Jordan elimination with pivots on the diagonal. */
function invert(G: Float64Array, n: number): Float64Array {
  const A = G.slice(), B = new Float64Array(n * n);
  for (let i = 0; i < n; i++) B[i * n + i] = 1;
  for (let k = 0; k < n; k++) {
    const pivot = A[k * n + k];
    for (let j = 0; j < n; j++) {
      A[k * n + j] /= pivot;
      B[k * n + j] /= pivot;
    }
    for (let i = 0; i < n; i++) {
      const factor = A[i * n + k];
      if (i === k || factor === 0) continue;
      for (let j = 0; j < n; j++) {
        A[i * n + j] -= factor * A[k * n + j];
        B[i * n + j] -= factor * B[k * n + j];
      }
    }
  }
  return B;
}

/**
 * Row j: what H^-1 of the columns from j on has there, once the columns before j are eliminated one after the other
 * (arXiv 2301.00774, equation 4).
 */
function inverseRows(H: Float32Array, n: number): Float64Array {
  const damped = Float64Array.from(H);
  let mean = 0;
  for (let i = 0; i < n; i++) mean += H[i * n + i] / n;
  for (let i = 0; i < n; i++) damped[i * n + i] += DAMPING * mean;
  const inverse = invert(damped, n), rows = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    const row = inverse.slice(j * n, (j + 1) * n);
    rows.set(row, j * n);
    for (let a = j; a < n; a++) {
      for (let b = j; b < n; b++) inverse[a * n + b] -= row[a] * row[b] / row[j];
    }
  }
  return rows;
}

/** Column by column: `keep(scores, rows)` chooses in the `span` columns that begin, scores `[rows, span]` w² / [H^-1]_jj. */
function reference(
  { W, H }: TestLayer,
  span: number,
  keep: (scores: number[][]) => boolean[][],
): { S: Float64Array; mask: Uint8Array } {
  const { rows, cols: n } = W, S = Float64Array.from(W.data), mask = new Uint8Array(S.length);
  const inverse = inverseRows(H, n);
  for (let j = 0; j < n; j++) {
    if (j % span === 0) {
      const width = Math.min(span, n - j);
      const scores = Array.from(
        { length: rows },
        (_, i) =>
          Array.from({ length: width }, (_, c) => S[i * n + j + c] ** 2 / inverse[(j + c) * n + j + c]),
      );
      keep(scores).forEach((row, i) => row.forEach((kept, c) => mask[i * n + j + c] = +kept));
    }
    for (let i = 0; i < rows; i++) {
      if (mask[i * n + j]) continue;
      const error = S[i * n + j] / inverse[j * n + j];
      for (let k = j; k < n; k++) S[i * n + k] -= error * inverse[j * n + k];
      S[i * n + j] = 0;
    }
  }
  return { S, mask };
}

/** The k largest of all. */
function largest(scores: readonly number[], k: number): boolean[] {
  const order = scores.map((_, j) => j).sort((a, b) => scores[b] - scores[a]).slice(0, k);
  return scores.map((_, j) => order.includes(j));
}

async function compare(layer: TestLayer, fields: RecipeInput, expected: ReturnType<typeof reference>) {
  const { S, mask } = await outcome(layer, { method: "sparsegpt", ...fields });
  assert.deepEqual(mask, expected.mask);
  const size = Math.max(...layer.W.data.map(Math.abs));
  S.data.forEach((x, at) => assert.ok(Math.abs(x - expected.S[at]) < TOLERANCE * size, `${at}`));
}

Deno.test("sparsegpt is the paper's sweep, unstructured: the smallest of all rows in 128 columns go", async () => {
  const layer = testLayer([10, 192], 21), rate = 0.5;
  let column = 0;
  const upTo = (columns: number) => Math.floor(96 * 10 * columns / 192);
  await compare(
    layer,
    { rate, pattern: "unstructured" },
    reference(layer, 128, (scores) => {
      const width = scores[0].length, flat = scores.flat();
      const kept = largest(flat, upTo(column + width) - upTo(column));
      column += width;
      return scores.map((_, i) => kept.slice(i * width, (i + 1) * width));
    }),
  );
});

for (const [n, m] of [[2, 4], [4, 8], [8, 16]]) {
  Deno.test(`sparsegpt is the paper's sweep, ${n}:${m}: chosen when the sweep reaches a group`, async () => {
    const layer = testLayer([10, 144], 22);
    const expected = reference(layer, m, (scores) => scores.map((row) => largest(row, n)));
    await compare(layer, { pattern: `${n}:${m}` as RecipeInput["pattern"] }, expected);
  });
}

Deno.test("sparsegpt loses less on the inputs than wanda, in every pattern", async () => {
  const layer = testLayer([64, 256], 23);
  for (const pattern of ["unstructured", "windows", "2:4", "4:8", "8:16"] as const) {
    const error = async (method: "sparsegpt" | "wanda") => {
      const { R } = await outcome(layer, { method, pattern, rate: 0.5 });
      return relativeError(layer.W, R, layer.H);
    };
    const ours = await error("sparsegpt"), wanda = await error("wanda");
    assert.ok(ours < 0.9 * wanda, `${pattern}: ${ours} against ${wanda}`);
  }
});

Deno.test("sparsegpt does not depend on the size of the inputs, and drops dead columns", async () => {
  const layer = testLayer([8, 64], 24);
  killColumns(layer, [3, 40]);
  const small: TestLayer = {
    ...layer,
    H: layer.H.map((h) => h * 2 ** -60),
    d: layer.d.map((x) => x * 2 ** -30),
  };
  const recipe: RecipeInput = { method: "sparsegpt", rate: 0.5, pattern: "unstructured" };
  const { S } = await outcome(layer, recipe);
  assert.deepEqual((await outcome(small, recipe)).S.data, S.data);
  for (let i = 0; i < 8; i++) assert.equal(S.data[i * 64 + 3] + S.data[i * 64 + 40], 0);
});
