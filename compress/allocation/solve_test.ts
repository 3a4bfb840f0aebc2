import assert from "node:assert/strict";
import fc from "fast-check";
import { chooseOptions, type Option } from "./solve.ts";

const option = fc.record({ cost: fc.integer({ min: 0, max: 20 }), loss: fc.integer({ min: 0, max: 50 }) });
const problem = fc.record({
  layers: fc.array(fc.array(option, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 5 }),
  budget: fc.integer({ min: 0, max: 60 }),
});

/** Least loss over all combinations that can be paid; Infinity when there is none. */
function bruteForce(layers: readonly (readonly Option[])[], budget: number): number {
  if (layers.length === 0) return 0;
  const [first, ...rest] = layers;
  return Math.min(
    ...first.map(({ cost, loss }) => cost > budget ? Infinity : loss + bruteForce(rest, budget - cost)),
  );
}

const total = (layers: readonly (readonly Option[])[], chosen: readonly number[], of: keyof Option) =>
  chosen.reduce((sum, i, layer) => sum + layers[layer][i][of], 0);

Deno.test("chooseOptions() stays within the budget, and loses at most one layer's step to the best", () => {
  fc.assert(fc.property(problem, ({ layers, budget }) => {
    const best = bruteForce(layers, budget), chosen = chooseOptions(layers, budget);
    assert.equal(chosen === null, best === Infinity);
    if (!chosen) return;
    assert.ok(total(layers, chosen, "cost") <= budget);
    // The relaxation loses less than the widest range of losses in one layer (its one fractional step).
    const widest = Math.max(
      ...layers.map((l) => Math.max(...l.map((o) => o.loss)) - Math.min(...l.map((o) => o.loss))),
    );
    assert.ok(total(layers, chosen, "loss") <= best + widest);
  }));
});

Deno.test("chooseOptions() never loses more with a larger budget for one layer", () => {
  fc.assert(fc.property(fc.array(option, { minLength: 1, maxLength: 8 }), fc.nat(40), (options, budget) => {
    const less = chooseOptions([options], budget), more = chooseOptions([options], budget + 5);
    if (less && more) assert.ok(options[more[0]].loss <= options[less[0]].loss);
  }));
});

Deno.test("chooseOptions() gives where it helps most", () => {
  const flat = [{ cost: 1, loss: 1 }, { cost: 2, loss: 0.9 }],
    steep = [{ cost: 1, loss: 8 }, { cost: 2, loss: 1 }];
  assert.deepEqual(chooseOptions([flat, steep, flat], 4), [0, 1, 0]);
  assert.equal(chooseOptions([flat, steep], 1), null);
});
