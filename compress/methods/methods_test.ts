/** One contract for all methods and patterns. */
import assert from "node:assert/strict";
import { PATTERNS, type RecipeInput, recipeSchema } from "../../models/recipe.ts";
import { outcome, relativeError, squares, testLayer } from "./_test_layers.ts";
import { METHODS } from "./mod.ts";

type Name = keyof typeof METHODS;

/** The rates to try: N:M patterns without L have one. */
const ratesOf = (method: Name, pattern: string): number[] =>
  !pattern.includes(":")
    ? [0.2, 0.5, 0.7]
    : METHODS[method].rankRatio({ rank_ratio: 1 }) > 0
    ? [0.2, 0.5]
    : [0.5];

for (const method of Object.keys(METHODS) as Name[]) {
  for (const pattern of PATTERNS) {
    if (!recipeSchema.safeParse({ method, pattern }).success) continue;
    Deno.test(`${method} meets its budget in ${pattern}, repeatably, no worse than magnitude`, async () => {
      const input = testLayer([96, 128], 1);
      for (const rate of ratesOf(method, pattern)) {
        const recipe: RecipeInput = { method, rate, pattern };
        const { R, parameters } = await outcome(input, recipe);
        const bound = (1 - rate) * 96 * 128;
        assert.ok(parameters <= bound + 96, `${parameters} parameters, budget ${bound}`);
        assert.deepEqual((await outcome(input, recipe)).R.data, R.data);
        if (method === "svd") continue; // makes no S: another family
        // N:M says magnitude's rate; oats then keeps more beside it.
        const magnitude = await outcome(input, {
          ...{ method: "magnitude", pattern },
          rate: pattern.includes(":") ? undefined : rate,
        });
        const M = method === "sparsegpt" ? input.H : squares(input.d);
        const error = relativeError(input.W, R, M), limit = relativeError(input.W, magnitude.R, M);
        assert.ok(error <= limit * (1 + 1e-6), `rate ${rate}: ${error} above ${limit}`);
      }
    });
  }
}

Deno.test("magnitude and wanda keep what their published scores say, compared within each group or row", async () => {
  const layer = testLayer([5, 32], 2), { W, d } = layer;
  const scoresOf = {
    magnitude: (at: number) => Math.abs(W.data[at]),
    wanda: (at: number) => Math.abs(W.data[at]) * d[at % 32],
  };
  for (
    const [method, score] of Object.entries(scoresOf) as [keyof typeof scoresOf, (at: number) => number][]
  ) {
    for (const [pattern, size] of [["unstructured", 32], ["2:4", 4], ["4:8", 8], ["8:16", 16]] as const) {
      const { S, mask } = await outcome(layer, { method, pattern, rate: 0.5 });
      for (let from = 0; from < W.data.length; from += size) {
        const order = Array.from({ length: size }, (_, i) => from + i).sort((a, b) => score(b) - score(a));
        order.forEach((at, place) => {
          assert.equal(mask[at], +(place < size / 2), `${method} ${pattern} ${at}`);
          assert.equal(S.data[at], mask[at] ? W.data[at] : 0);
        });
      }
    }
  }
});
