import assert from "node:assert/strict";
import { seededRandom } from "../random.ts";
import { outlierRatio, outlierRatios, owlRates } from "./owl.ts";
import { uniformRates } from "./uniform.ts";

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

Deno.test("allocations spend the budget exactly", () => {
  const ratios = [1, 5, 2, 0.5, 9, 9.5];
  for (const rate of [0, 0.05, 0.3, 0.5, 0.95]) {
    assert.ok(Math.abs(mean(uniformRates(6, rate)) - rate) < 1e-9);
    const rates = owlRates(ratios, { rate, lambda: 0.08 });
    assert.ok(Math.abs(mean(rates) - rate) < 1e-9, `mean ${mean(rates)}, wanted ${rate}`);
    assert.ok(rates.every((r) => r >= 0 && r < 1));
  }
});

Deno.test("owlRates() gives blocks with more outliers more parameters, 2 λ apart at most", () => {
  const rates = owlRates([3, 1, 2], { rate: 0.5, lambda: 0.08 });
  assert.ok(rates[0] < rates[2] && rates[2] < rates[1]);
  assert.ok(Math.abs(rates[1] - rates[0] - 0.16) < 1e-9);
});

Deno.test("owlRates() removes nothing at all at rate 0", () => {
  for (const lambda of [0, 0.08]) assert.deepEqual(owlRates([3, 1, 2], { rate: 0, lambda }), [0, 0, 0]);
});

Deno.test("owlRates() is uniform for equal ratios and for λ = 0", () => {
  for (const r of owlRates([2, 2, 2], { rate: 0.4, lambda: 0.08 })) assert.ok(Math.abs(r - 0.4) < 1e-9);
  for (const r of owlRates([1, 2, 3], { rate: 0.4, lambda: 0 })) assert.ok(Math.abs(r - 0.4) < 1e-9);
});

Deno.test("outlierRatios() of several multiples are those of each alone", () => {
  const random = seededRandom(3);
  const layers = [5, 8].map((n) => ({
    W: Float32Array.from({ length: 40 * n }, () => random.normal() ** 3),
    d: Float32Array.from({ length: n }, () => Math.abs(random.normal())),
  }));
  const found = outlierRatios(layers, [1, 2, 5]);
  assert.deepEqual(found, [1, 2, 5].map((m) => outlierRatio(layers, m)));
  assert.ok(found[0] > found[1] && found[1] > found[2] && found[2] > 0);
});

Deno.test("outlierRatio() counts scores above m x the block's mean", () => {
  const layers = [
    { W: Float32Array.of(1, -1, 1, 100), d: Float32Array.of(1, 1) },
    { W: Float32Array.of(1, 1, 1, -1), d: Float32Array.of(1, 0) },
  ];
  assert.equal(outlierRatio(layers, 5), 1 / 8); // mean 105 / 8
  assert.equal(outlierRatio([{ W: new Float32Array(4), d: Float32Array.of(1, 1) }], 5), 0);
});
