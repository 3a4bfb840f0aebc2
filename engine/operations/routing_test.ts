import assert from "node:assert/strict";
import fc from "fast-check";
import { chooseExperts, Routing } from "./routing.ts";

const scoresOf = (min: number) =>
  fc.array(fc.float({ min: -30, max: 30, noNaN: true }), { minLength: min, maxLength: 12 });

Deno.test("chooseExperts() keeps the largest of the softmax over all scores, divided by their sum", () => {
  fc.assert(fc.property(scoresOf(1), fc.integer({ min: 1, max: 12 }), (scores, most) => {
    const perToken = Math.min(most, scores.length), shares = Float32Array.from(scores);
    chooseExperts(shares, perToken);
    const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
    const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b).slice(0, perToken);
    const total = order.reduce((sum, e) => sum + powers[e], 0);
    scores.forEach((_, e) => {
      const wanted = order.includes(e) ? powers[e] / total : 0;
      assert.ok(Math.abs(shares[e] - wanted) < 1e-6, `expert ${e}: ${shares[e]}, not ${wanted}`);
    });
  }));
});

Deno.test("chooseExperts() chooses as many experts where scores are no numbers", () => {
  const shares = Float32Array.of(NaN, NaN, NaN, 1);
  chooseExperts(shares, 2);
  assert.equal(shares.filter((x) => x !== 0).length, 2);
});

Deno.test("Routing finds the rows of an expert in order, with their shares", () => {
  const experts = { count: 5, perToken: 2 }, stride = 8;
  const rows = fc.array(scoresOf(5), { minLength: 1, maxLength: 20 });
  fc.assert(fc.property(rows, (rows) => {
    const floats = new Float32Array((rows.length + 1) * stride), routing = new Routing(floats);
    const address = (row: number) => (1 + row) * stride * 4; // the first row lies somewhere
    rows.forEach((scores, row) => {
      floats.set(scores.slice(0, experts.count), address(row) / 4);
      routing.choose(address(row), experts);
    });
    const sums = rows.map(() => 0), counts = rows.map(() => 0);
    for (let expert = 0; expert < experts.count; expert++) {
      const count = routing.find(address(0) + expert * 4, stride, rows.length);
      assert.equal(count, routing.rows.length);
      assert.deepEqual(routing.rows, routing.rows.toSorted((a, b) => a - b));
      routing.rows.forEach((row, i) => {
        sums[row] += routing.shares[i];
        counts[row]++;
      });
    }
    assert.ok(sums.every((sum) => Math.abs(sum - 1) < 1e-6));
    assert.ok(counts.every((n) => n === experts.perToken || n === 1)); // a share may be too small for a float
  }));
});
