import assert from "node:assert/strict";
import fc from "fast-check";
import { groupRuns } from "./group_runs.ts";

Deno.test("groupRuns() gives every group of every weight to one thread, by whole panels", () => {
  const counts = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 4 });
  fc.assert(fc.property(counts, fc.integer({ min: 1, max: 5 }), (counts, threads) => {
    const given: string[] = [];
    for (let thread = 0; thread < threads; thread++) {
      for (const { part, from, to, outGroup } of groupRuns(counts, thread, threads)) {
        assert.equal(from % 2, 0);
        assert.ok(to % 2 === 0 || to === counts[part]);
        const before = counts.slice(0, part).reduce((a, b) => a + b, 0);
        for (let g = from; g < to; g++) {
          assert.equal(outGroup + g - from, before + g);
          given.push(`${part}:${g}`);
        }
      }
    }
    assert.deepEqual(
      given.toSorted(),
      counts.flatMap((n, part) => Array.from({ length: n }, (_, g) => `${part}:${g}`)).sort(),
    );
  }));
});
