/** Layers and inputs that are legal but unpleasant, through every method, pattern and kind of values. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { packedBytes, type Shape2 } from "../kernels/layout.ts";
import { METHODS, PATTERNS, type Recipe, recipeSchema, ROUNDINGS, VALUES } from "../models/recipe.ts";
import { compressInputGroup } from "./input_group.ts";
import type { LayerResult } from "./layer.ts";
import { planAtRate } from "./layer_plan.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import { reconstruct } from "./quantize.ts";
import { seededRandom } from "./random.ts";
import { shared, toShared } from "./statistics.ts";

/** Sizes of the inputs' columns and number of tokens; the tokens of `constant` inputs are all the same. */
interface Inputs {
  readonly tokens: number;
  readonly constant: boolean;
  readonly size: (column: number, random: () => number) => number;
}

const INPUTS: Readonly<Record<string, Inputs>> = {
  plain: { tokens: 96, constant: false, size: () => 1 },
  "dead columns": { tokens: 96, constant: false, size: (j) => j % 3 === 1 ? 0 : 1 },
  "all columns dead": { tokens: 4, constant: false, size: () => 0 },
  "fewer tokens than columns": { tokens: 2, constant: false, size: () => 1 },
  "constant activations": { tokens: 16, constant: true, size: () => 1 },
  "24 powers of ten": { tokens: 96, constant: false, size: (_, random) => 10 ** (24 * random() - 12) },
  "sizes whose squares vanish": { tokens: 8, constant: false, size: (j) => j % 2 ? 1e-23 : 1 },
  "squares near the largest float": { tokens: 8, constant: false, size: () => 1e17 },
};

const WEIGHTS: Readonly<Record<string, (at: number, cols: number, normal: () => number) => number>> = {
  plain: (_at, _cols, normal) => normal(),
  zero: () => 0,
  "zero columns and rows": (at, cols, normal) => (at % cols) % 4 === 0 || at < cols ? 0 : normal(),
  equal: () => 0.5,
  large: (_at, _cols, normal) => 1e12 * normal(),
  tiny: (_at, _cols, normal) => 1e-30 * normal(),
};

function layerOf([dOut, dIn]: Shape2, inputs: Inputs, weights: keyof typeof WEIGHTS, seed: number) {
  const random = seededRandom(seed), normal = () => random.normal();
  const W = shared(dOut * dIn).map((_, at) => WEIGHTS[weights](at, dIn, normal));
  const sizes = Array.from({ length: dIn }, (_, j) => inputs.size(j, () => random.next()));
  const first = sizes.map((size) => size * normal());
  const X = Array.from(
    { length: inputs.tokens },
    () => inputs.constant ? first : sizes.map((size) => size * normal()),
  );
  const moment = (i: number, j: number) => X.reduce((sum, x) => sum + x[i] * x[j], 0) / X.length;
  const H = shared(dIn * dIn).map((_, at) => moment(Math.floor(at / dIn), at % dIn));
  return {
    W: toShared(W),
    H: toShared(H),
    d: toShared(shared(dIn).map((_, j) => Math.sqrt(moment(j, j)))),
  };
}

async function checkResult(shape: Shape2, { tensors, report }: LayerResult, linalg: LinalgRuntime) {
  for (const { format, bytes, shape } of tensors) {
    assert.equal(bytes.length, packedBytes(format, [shape[0], shape[1]]));
  }
  const R = await reconstruct(tensors, linalg);
  assert.deepEqual([R.rows, R.cols], shape);
  assert.ok(R.data.every(Number.isFinite), "S + L is finite");
  const numbers = [report.error, report.rate, report.kept];
  assert.ok(numbers.every(Number.isFinite) && report.error >= 0, JSON.stringify(report));
}

const recipes = fc.record({
  method: fc.constantFrom(...METHODS.filter((name) => name !== "none" && name !== "structured")),
  pattern: fc.constantFrom(...PATTERNS),
  values: fc.constantFrom(...VALUES),
  rate: fc.constantFrom(undefined, 0, 0.3, 0.5, 0.95),
  rank_ratio: fc.constantFrom(undefined, 0, 0.25, 1),
  decomposition: fc.constantFrom("fast", "exact"),
  svd_weighting: fc.constantFrom("none", "scales", "moments"),
  refine: fc.boolean(),
  rounding: fc.constantFrom(...ROUNDINGS),
  reselect: fc.constantFrom(0, 2),
  iterations: fc.constant(3),
});
/** 1 ms each. */
const RUNS = 500;
const SHAPES: readonly Shape2[] = [[1, 1], [2, 3], [1, 70], [70, 1], [24, 64], [20, 200]];

type Fields = typeof recipes extends fc.Arbitrary<infer F> ? F : never;
const FIELDS: Omit<Fields, "method"> = {
  ...{ pattern: "unstructured", values: "f32", rate: undefined, rank_ratio: undefined },
  ...{
    refine: false,
    rounding: "nearest",
    reselect: 0,
    decomposition: "fast",
    svd_weighting: "none",
    iterations: 3,
  },
};

Deno.test("every method and pattern answers unpleasant layers with finite tensors", async () => {
  const linalg = await LinalgRuntime.create();
  await fc.assert(
    fc.asyncProperty(
      recipes,
      fc.constantFrom(...SHAPES),
      fc.constantFrom(...Object.keys(INPUTS)),
      fc.constantFrom(...Object.keys(WEIGHTS)),
      fc.nat(99),
      async (fields, shape, inputs, weights, seed) => {
        const parsed = recipeSchema.safeParse(fields);
        if (!parsed.success) return; // refused before any work: the recipe's tests
        const recipe: Recipe = parsed.data, blockChunks = 2;
        const { W, d, H } = layerOf(shape, INPUTS[inputs], weights, seed);
        const plan = planAtRate(shape, recipe.rate, { recipe, blockChunks });
        const results = await compressInputGroup({
          ...{ kind: "inputGroup", layers: [{ name: "block.0.q", W, shape, plan }], d, H },
          ...{ recipe, blockChunks, replace: true },
        }, linalg);
        for (const result of results) await checkResult(shape, result, linalg);
        assert.ok(W.every(Number.isFinite), "what replaces W is finite");
      },
    ),
    {
      numRuns: RUNS,
      examples: [
        // Weights times inputs 1e24: their squares overflowed.
        [{ ...FIELDS, method: "oats" }, [20, 200], "24 powers of ten", "large", 0],
        // A refit gave columns of size 1e-23 weights of 1e35 and more.
        [
          { ...FIELDS, method: "magnitude", refine: true, reselect: 2 },
          [20, 200],
          "sizes whose squares vanish",
          "large",
          31,
        ],
      ],
    },
  );
  await linalg.close();
});
