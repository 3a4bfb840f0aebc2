import assert from "node:assert/strict";
import fc from "fast-check";
import { median, quantile, spread } from "./spread.ts";

Deno.test("spread() gives the ends and the quartiles, in any order of the values", () => {
  assert.deepEqual(spread([5, 1, 3, 2, 4]), { min: 1, q1: 2, q3: 4, max: 5 });
  assert.deepEqual(spread([2, 1]), { min: 1, q1: 1.25, q3: 1.75, max: 2 });
  assert.deepEqual(spread([7]), { min: 7, q1: 7, q3: 7, max: 7 });
});

Deno.test("median() lies between the quartiles, and as many values below as above", () => {
  const values = fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 20 });
  fc.assert(fc.property(values, (v) => {
    const { min, q1, q3, max } = spread(v), m = median(v);
    assert.ok(min <= q1 && q1 <= m && m <= q3 && q3 <= max);
    assert.ok(v.filter((x) => x < m).length <= v.length / 2 && v.filter((x) => x > m).length <= v.length / 2);
    assert.equal(quantile(v.toReversed(), 0.3), quantile(v, 0.3));
  }));
});
