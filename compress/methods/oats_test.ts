/** OATS against its exact self and a matrix it can separate. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../models/open.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { energy, type Matrix, matrix, scaleColumns, subtract } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { entryChoice } from "../select.ts";
import { outcome, type TestLayer, testLayer } from "./_test_layers.ts";
import { oats } from "./oats.ts";

/** Methods of 20 fast iterations may be this much worse than 20 exact ones (measured: they are better). */
const FAST_TOLERANCE = 1.01;

const weightedError = ({ W, d }: TestLayer, R: Matrix) =>
  energy(scaleColumns(subtract(W, R), d)) / energy(scaleColumns(W, d));

Deno.test("oats removes nothing at rate 0 and only ranks at rank ratio 1", async () => {
  const linalg = await LinalgRuntime.create();
  const input = testLayer([32, 64], 5);
  const whole = await outcome(input, { method: "oats", rate: 0, pattern: "unstructured" });
  assert.ok(weightedError(input, whole.R) < 0.02);
  const { U, V, budget, S } = await outcome(input, {
    method: "oats",
    rate: 0.5,
    rank_ratio: 1,
    iterations: 3,
  });
  assert.deepEqual(budget, { kept: 0, rank: 10, windows: 0 });
  assert.ok(S.data.every((x) => x === 0));
  const A = scaleColumns(input.W, input.d), L = scaleColumns(await linalg.multiply(U, V), input.d);
  assert.ok(energy(subtract(A, L)) < energy(A));
  await linalg.close();
});

for (const decomposition of ["exact", "fast"] as const) {
  Deno.test(`${decomposition} OATS separates a rank-1 matrix from one large entry a row`, async () => {
    const linalg = await LinalgRuntime.create();
    const random = seededRandom(9), rows = 24, cols = 32;
    const u = Array.from({ length: rows }, () => 1 + random.next()),
      v = Array.from({ length: cols }, () => 1 + random.next());
    const L = matrix(
      rows,
      cols,
      Float32Array.from({ length: rows * cols }, (_, at) => u[Math.floor(at / cols)] * v[at % cols]),
    );
    const W = matrix(rows, cols, L.data.slice());
    for (let i = 0; i < rows; i++) W.data[i * cols + random.below(cols)] += 10;
    const budget = { kept: 1, rank: 1, windows: null };
    const recipe = recipeSchema.parse({ method: "oats", decomposition });
    const prepared = await oats.prepare({ d: new Float32Array(cols).fill(1), H: null }, {
      recipe,
      linalg,
    });
    const choice = entryChoice(budget, { dIn: cols, blockChunks: 1 });
    const { U, V } = await prepared.compress({ W }, { budget, choice });
    const error = energy(subtract(L, await linalg.multiply(U, V))) / energy(L);
    assert.ok(error < 1e-6, `${error}`);
    await linalg.close();
  });
}

for (const shape of [[96, 64], [64, 160]] as const) {
  Deno.test(`fast OATS is within 1 % of exact OATS on [${shape}]`, async () => {
    const input = testLayer(shape, 6);
    const of = async (decomposition: "fast" | "exact") => {
      const { R } = await outcome(input, {
        method: "oats",
        rate: 0.5,
        pattern: "unstructured",
        decomposition,
      });
      return weightedError(input, R);
    };
    const fast = await of("fast"), exact = await of("exact");
    assert.ok(fast <= exact * FAST_TOLERANCE, `${fast} against ${exact}`);
  });
}

/** Lies beside the repository on development machines only. */
const SMOLLM2 = new URL("../../../shared/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url).pathname;
const present = await Deno.stat(SMOLLM2).then(() => true, () => false);

Deno.test({
  name: "fast OATS is within 1 % of exact OATS on real layers (needs SmolLM2 in ../shared/models)",
  ignore: !present,
  fn: async () => {
    const checkpoint = await openCheckpoint(SMOLLM2);
    for (const [block, name] of [[1, "k"], [20, "v"]] as const) {
      const { data, shape } = await checkpoint.read(`block.${block}.${name}`);
      // The norm's weights stand in for the inputs' root mean squares.
      const norm = (await checkpoint.read(`block.${block}.attnNorm`)).data;
      const input = { W: matrix(shape[0], shape[1], data), d: norm.map(Math.abs), H: new Float32Array() };
      const of = async (decomposition: "fast" | "exact") => {
        const { R } = await outcome(input, {
          method: "oats",
          rate: 0.5,
          pattern: "unstructured",
          decomposition,
        });
        return weightedError(input, R);
      };
      const fast = await of("fast"), exact = await of("exact");
      assert.ok(fast <= exact * FAST_TOLERANCE, `${block}.${name}: ${fast} against ${exact}`);
    }
    checkpoint.close();
  },
});

Deno.test("oats keeps N of every M in S and gives the rest of the rate to L", async () => {
  for (const [pattern, rate] of [["2:4", 0.3], ["4:8", 0.45], ["8:16", 0.5]] as const) {
    const { mask, U, V, budget } = await outcome(testLayer([48, 64], 10), { method: "oats", pattern, rate });
    const { n, m } = budget.groups!;
    for (let at = 0; at < mask.length; at += m) {
      assert.equal(mask.subarray(at, at + m).reduce((sum, x) => sum + x, 0), n);
    }
    const spare = (0.5 - rate) * 48 * 64;
    const used = U.data.length + V.data.length;
    assert.ok(used <= spare + 1e-6 && used > spare - 48 - 64, `${used} of ${spare}`);
  }
});
