import assert from "node:assert/strict";
import fc from "fast-check";
import { recipeSchema } from "../models/recipe.ts";
import { LINEAR_NAMES, type LinearKind, linearShapes } from "../models/spec.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { sparseRate } from "./dense_layers.ts";

const spec = SYNTHETIC_SPECS["smollm2-135m"];
const shapes = linearShapes(spec);
const size = (names: readonly LinearKind[]) =>
  names.reduce((n, name) => n + shapes[name]![0] * shapes[name]![1], 0);

Deno.test("sparseRate() keeps the rate of the whole, or says that it cannot", () => {
  const cases = fc.record({
    rate: fc.integer({ min: 0, max: 95 }).map((n) => n / 100),
    dense: fc.uniqueArray(fc.constantFrom(...LINEAR_NAMES)),
  });
  fc.assert(fc.property(cases, ({ rate, dense }) => {
    const compressed = size(LINEAR_NAMES.filter((name) => !dense.includes(name)));
    const wanted = rate * size(LINEAR_NAMES), possible = wanted <= 0.95 * compressed;
    const recipe = recipeSchema.parse({ rate, dense });
    if (possible || rate === 0) {
      const removed = sparseRate(spec, recipe) * compressed;
      assert.ok(Math.abs(removed - wanted) <= 1e-9 * wanted, `${removed} for ${wanted}`);
    } else {
      assert.throws(() => sparseRate(spec, recipe), { code: "invalid_recipe", param: "dense" });
    }
  }));
});

Deno.test("sparseRate() says what the other layers could lose, and names layers that are not there", () => {
  const mlp = ["gate", "up", "down"] as const;
  assert.throws(() => sparseRate(spec, recipeSchema.parse({ rate: 0.3, dense: mlp })), /hold 0\.250 of them/);
  const plain = { ...spec, mlp: { ...spec.mlp, gated: false } };
  assert.throws(
    () => sparseRate(plain, recipeSchema.parse({ dense: ["gate"] })),
    /only q, k, v, o, up, down/,
  );
});
