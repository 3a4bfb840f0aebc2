import assert from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import { recipeSchema } from "../../../models/recipe.ts";
import { recipeFields, type Schema, toRecipe } from "./recipe_fields.ts";

const fields = recipeFields(z.toJSONSchema(recipeSchema, { io: "input" }) as Schema);

Deno.test("recipeFields() knows every field of the recipe, by what can be filled in", () => {
  const kinds = Object.fromEntries(fields.map(({ path, kind }) => [path, kind]));
  const some = {
    method: "choice",
    rate: "number",
    "budget.bytes": "integer",
    "budget.ms_per_token": "number",
    dense: "choices",
    mean_bits: "number",
    refine: "boolean",
    "calibration.text": "text",
    "evaluate.text": "text",
  };
  assert.deepEqual({ ...kinds, ...some }, kinds);
  const recipe = recipeSchema.parse({}) as Record<string, unknown>;
  for (const [name, value] of Object.entries(recipe)) {
    const inner = value && typeof value === "object" && !Array.isArray(value) ? Object.keys(value) : null;
    for (const path of inner?.map((one) => `${name}.${one}`) ?? [name]) {
      assert.ok(Object.keys(kinds).some((known) => known === path || known.startsWith(`${path}.`)), path);
    }
  }
});

Deno.test("toRecipe() sends what was filled in, typed, and nothing else", () => {
  assert.deepEqual(toRecipe(fields, { rate: "", method: "" }), {});
  const recipe = toRecipe(fields, {
    method: "oats",
    rate: "0.4",
    refine: "false",
    dense: ["q", "v"],
    "calibration.sequences": "8",
    "calibration.text": "calibration.txt",
    "allocation.kind": "owl",
  });
  assert.deepEqual(recipe, {
    method: "oats",
    rate: 0.4,
    refine: false,
    dense: ["q", "v"],
    calibration: { sequences: 8, text: "calibration.txt" },
    allocation: { kind: "owl" },
  });
  assert.equal(recipeSchema.parse(recipe).rate, 0.4);
});
