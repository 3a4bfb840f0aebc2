import assert from "node:assert/strict";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { compressInputGroup } from "./input_group.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import { seededRandom } from "./random.ts";
import { shared, toShared } from "./statistics.ts";
import { planAtRate } from "./layer_plan.ts";
import { storedParts } from "./stored_parts.ts";

Deno.test("storedParts() says before compression what it will store", async () => {
  const linalg = await LinalgRuntime.create();
  const random = seededRandom(3);
  const W = toShared(Float32Array.from({ length: 96 * 128 }, () => random.normal()));
  const d = shared(128).fill(1);
  const shape = [96, 128] as const, blockChunks = 2;
  const recipes: Partial<Recipe>[] = [
    { rate: 0.5, values: "int8" },
    { rate: 0.5, values: "int4" },
    { rate: 0.5, rank_ratio: 0 },
    { rate: 0.9, values: "int4" },
    { rate: 0.1 }, // S and L would take more bytes than a dense layer
    { rate: 0.5, values: "f32" },
    { rate: 0, values: "int4" },
    { method: "wanda", rate: 0.5 },
    { method: "none", values: "int4" },
    { method: "none", values: "int5" },
    { method: "none", values: "int2" },
    { rate: 0.5, values: "int5" },
    { rate: 0.9, values: "int3" },
  ];
  const seen = new Set<string>();
  for (const fields of recipes) {
    const recipe = { ...recipeSchema.parse({ iterations: 2, ...fields }), pattern: "windows" as const };
    const [{ tensors }] = await compressInputGroup({
      ...{
        kind: "inputGroup",
        layers: [{ name: "q", W, shape, plan: planAtRate(shape, recipe.rate, { recipe, blockChunks }) }],
        d,
        H: null,
      },
      ...{ recipe, blockChunks, replace: false },
    }, linalg);
    const parts = storedParts(shape, recipe.rate, { recipe, blockChunks });
    assert.deepEqual(parts, tensors.map(({ bytes: _, ...part }) => part), JSON.stringify(fields));
    seen.add(parts.map((p) => p.part).join());
  }
  assert.deepEqual([...seen].sort(), ["s", "s,v,u", "w"]);
  await linalg.close();
});
