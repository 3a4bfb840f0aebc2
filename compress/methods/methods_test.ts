/** One contract for all methods; OATS against its exact self. */
import assert from "node:assert/strict";
import { layerBudget } from "../budget.ts";
import { energy, type Matrix, matrix, scaleColumns, subtract } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { entryChoice, keepPerRow } from "../select.ts";
import { METHODS } from "./mod.ts";
import { openCheckpoint } from "../../models/open.ts";
import { recipeSchema } from "../../models/recipe.ts";
import type { Shape2 } from "../../kernels/layout.ts";

/** Methods of 20 fast iterations may be this much worse than 20 exact ones (measured: they are better). */
const FAST_TOLERANCE = 1.01;

/** Weights with a decaying spectrum, as trained layers have, plus noise and a few large columns of inputs. */
function layer([dOut, dIn]: Shape2, seed: number): { W: Matrix; d: Float32Array } {
  const random = seededRandom(seed);
  const W = matrix(dOut, dIn);
  const rank = Math.min(dOut, dIn);
  for (let k = 0; k < rank; k++) {
    const u = Array.from({ length: dOut }, () => random.normal()),
      v = Array.from({ length: dIn }, () => random.normal());
    const size = 1 / (1 + k);
    for (let i = 0; i < dOut; i++) for (let j = 0; j < dIn; j++) W.data[i * dIn + j] += size * u[i] * v[j];
  }
  for (let i = 0; i < W.data.length; i++) W.data[i] += 0.3 * random.normal() ** 3;
  return { W, d: Float32Array.from({ length: dIn }, () => Math.exp(random.normal())) };
}

interface Case {
  readonly rate: number;
  readonly pattern: "unstructured" | "windows";
  readonly decomposition?: "fast" | "exact";
  readonly iterations?: number;
}

/** S + L and the number of parameters they have. */
async function approximate(
  name: keyof typeof METHODS,
  { W, d }: { W: Matrix; d: Float32Array },
  { rate, pattern, decomposition = "fast", iterations = 20 }: Case,
): Promise<{ R: Matrix; parameters: number }> {
  const linalg = await LinalgRuntime.create();
  const method = METHODS[name];
  const budget = layerBudget([W.rows, W.cols], rate, { rankRatio: method.lowRank ? 0.25 : 0, pattern });
  const recipe = recipeSchema.parse({ method: name, iterations, decomposition });
  const prepared = await method.prepare({ d, H: null }, { recipe, linalg });
  const choice = entryChoice(budget, { dIn: W.cols, blockChunks: 2 });
  const { S, U, V, mask } = await prepared.compress({ W }, { budget, choice });
  S.data.forEach((x, at) => assert.ok(x === 0 || mask[at]));
  const R = await linalg.multiply(U, V);
  for (let i = 0; i < mask.length; i++) R.data[i] += S.data[i];
  await linalg.close();
  const kept = mask.reduce((n, m) => n + m, 0);
  return { R, parameters: kept + U.data.length + V.data.length };
}

const weightedError = ({ W, d }: { W: Matrix; d: Float32Array }, R: Matrix) =>
  energy(scaleColumns(subtract(W, R), d)) / energy(scaleColumns(W, d));

for (const name of Object.keys(METHODS) as (keyof typeof METHODS)[]) {
  for (const pattern of ["unstructured", "windows"] as const) {
    Deno.test(`${name} meets its budget in ${pattern}, repeatably, no worse than magnitude`, async () => {
      const input = layer([96, 128], 1);
      for (const rate of [0.2, 0.5, 0.7]) {
        const first = await approximate(name, input, { rate, pattern });
        const budget = (1 - rate) * 96 * 128;
        assert.ok(first.parameters <= budget + 96, `${first.parameters} parameters, budget ${budget}`);
        const again = await approximate(name, input, { rate, pattern });
        assert.deepEqual(again.R.data, first.R.data);
        const magnitude = await approximate("magnitude", input, { rate, pattern });
        const error = weightedError(input, first.R), bound = weightedError(input, magnitude.R);
        assert.ok(error <= bound * (1 + 1e-6), `rate ${rate}: ${error} above ${bound}`);
      }
    });
  }

  Deno.test(`${name} is harmless with dead columns and tiny layers`, async () => {
    const input = layer([24, 64], 2);
    for (let j = 0; j < 10; j++) input.d[j * 5] = 0;
    const { R } = await approximate(name, input, { rate: 0.5, pattern: "unstructured" });
    assert.ok(R.data.every(Number.isFinite));
    const tiny = layer([2, 3], 3); // rank < 1: no L
    assert.ok(
      (await approximate(name, tiny, { rate: 0.5, pattern: "unstructured" })).R.data.every(Number.isFinite),
    );
    const dead = { W: layer([8, 64], 4).W, d: new Float32Array(64) };
    assert.ok(
      (await approximate(name, dead, { rate: 0.5, pattern: "windows" })).R.data.every(Number.isFinite),
    );
  });
}

Deno.test("oats removes nothing at rate 0 and only ranks at rank ratio 1", async () => {
  const linalg = await LinalgRuntime.create();
  const input = layer([32, 64], 5);
  const whole = await approximate("oats", input, { rate: 0, pattern: "unstructured" });
  assert.ok(weightedError(input, whole.R) < 0.02);
  const budget = layerBudget([32, 64], 0.5, { rankRatio: 1, pattern: "windows" });
  assert.deepEqual(budget, { kept: 0, rank: 10, windows: 0 });
  const recipe = recipeSchema.parse({ iterations: 3 });
  const prepared = await METHODS.oats.prepare({ d: input.d, H: null }, { recipe, linalg });
  const choice = entryChoice(budget, { dIn: 64, blockChunks: 1 });
  const { U, V } = await prepared.compress(input, { budget, choice });
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
    const recipe = recipeSchema.parse({ decomposition });
    const prepared = await METHODS.oats.prepare({ d: new Float32Array(cols).fill(1), H: null }, {
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
    const input = layer(shape, 6);
    const of = async (decomposition: "fast" | "exact") => {
      const { R } = await approximate("oats", input, { rate: 0.5, pattern: "unstructured", decomposition });
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
      const input = { W: matrix(shape[0], shape[1], data), d: norm.map(Math.abs) };
      const of = async (decomposition: "fast" | "exact") => {
        const { R } = await approximate("oats", input, { rate: 0.5, pattern: "unstructured", decomposition });
        return weightedError(input, R);
      };
      const fast = await of("fast"), exact = await of("exact");
      assert.ok(fast <= exact * FAST_TOLERANCE, `${block}.${name}: ${fast} against ${exact}`);
    }
    checkpoint.close();
  },
});

Deno.test("keepPerRow() keeps exactly the k largest of every row, the leftmost of equal ones", () => {
  const random = seededRandom(8);
  const scores = matrix(50, 37, Float32Array.from({ length: 50 * 37 }, () => Math.floor(random.next() * 12)));
  for (const k of [0, 1, 5, 36, 37]) {
    const mask = keepPerRow(scores, k);
    for (let i = 0; i < 50; i++) {
      const row = Array.from(scores.data.subarray(i * 37, (i + 1) * 37));
      const order = row.map((_, j) => j).sort((a, b) => row[b] - row[a] || a - b).slice(0, k).sort((a, b) =>
        a - b
      );
      const kept = row.map((_, j) => j).filter((j) => mask[i * 37 + j]);
      assert.deepEqual(kept, order);
    }
  }
});
