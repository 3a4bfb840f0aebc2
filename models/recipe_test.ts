import assert from "node:assert/strict";
import { recipeSchema } from "./recipe.ts";

Deno.test("recipeSchema fills every default", () => {
  const recipe = recipeSchema.parse({});
  assert.equal(recipe.method, "oatmill");
  assert.deepEqual([recipe.rank_ratio, recipe.reselect], [0.125, 5]);
  const oats = recipeSchema.parse({ method: "oats" });
  assert.equal(oats.allocation.kind, "uniform");
  assert.equal(recipeSchema.parse({ allocation: {} }).allocation.kind, "measured");
  assert.deepEqual([oats.rank_ratio, oats.reselect, oats.iterations], [0.25, 0, 20]);
  assert.equal(recipe.rate, 0.3);
  assert.deepEqual(recipe.allocation, { kind: "measured", lambda: 0.08, m: 5 });
  assert.equal(recipe.calibration.text, "self");
  assert.deepEqual(recipeSchema.parse(recipe), recipe);
});

Deno.test("recipeSchema takes an allocation by its name alone", () => {
  assert.equal(recipeSchema.parse({ allocation: "uniform" }).allocation.kind, "uniform");
});

Deno.test("recipeSchema refuses misspelt fields and values out of range", () => {
  for (
    const bad of [
      { ratee: 0.5 },
      { calibration: { sequence: 3 } },
      { rate: 1 },
      { rate: "0.5" },
      {
        method: "magic",
      },
      { dense: ["head"] },
      { dense: "q" },
      { evaluate: { tokens: 1 } },
    ]
  ) {
    assert.equal(recipeSchema.safeParse(bad).success, false, JSON.stringify(bad));
  }
});
