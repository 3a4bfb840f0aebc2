import assert from "node:assert/strict";
import fc from "fast-check";
import { groupRates } from "./group_rates.ts";
import { owlRates } from "./owl.ts";

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

Deno.test("groupRates() gives every block a whole N, their sum that of the pattern", () => {
  fc.assert(fc.property(
    fc.constantFrom([2, 4], [4, 8], [8, 16]),
    fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 40 }),
    fc.double({ min: 0, max: 0.5, noNaN: true }),
    ([n, m], ratios, lambda) => {
      const rates = groupRates(owlRates(ratios, { rate: 1 - n / m, lambda }), { n, m });
      const counts = rates.map((rate) => m * (1 - rate));
      assert.ok(counts.every((c) => Number.isInteger(c) && c >= 1 && c <= m), `${counts}`);
      assert.equal(sum(counts), n * ratios.length);
    },
  ));
});

Deno.test("groupRates() keeps more in blocks with more outliers: mixed N:8", () => {
  const rates = owlRates([1, 3, 9, 2], { rate: 0.5, lambda: 0.15 });
  assert.deepEqual(groupRates(rates, { n: 4, m: 8 }), [5 / 8, 1 / 2, 1 / 4, 5 / 8]);
  assert.deepEqual(groupRates([0.5, 0.5, 0.5], { n: 2, m: 4 }), [0.5, 0.5, 0.5]);
});
