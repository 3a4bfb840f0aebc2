import assert from "node:assert/strict";
import fc from "fast-check";
import { type ArrivalOptions, ARRIVALS, arrivalTimes } from "./arrivals.ts";

const OPTIONS: ArrivalOptions = {
  kind: "poisson",
  rate: 5,
  burstiness: 1,
  ramp: { from: 1, seconds: 100 },
};
const COUNT = 20_000;

function times(options: Partial<ArrivalOptions>, seed = 1, count = COUNT): number[] {
  const source = arrivalTimes({ ...OPTIONS, ...options }, seed);
  return Array.from({ length: count }, () => source.next().value / 1000);
}
const gaps = (t: readonly number[]) => t.slice(1).map((x, i) => x - t[i]);
const mean = (x: readonly number[]) => x.reduce((a, b) => a + b, 0) / x.length;
/** Variance over the squared mean. */
const relativeVariance = (x: readonly number[]) => mean(x.map((v) => v * v)) / mean(x) ** 2 - 1;
/** Of a mean or variance over COUNT gaps: more than five standard errors of the widest distribution here. */
const NOISE = 0.15;

Deno.test("arrivals have the rate asked for, never go back, and repeat with their seed", () => {
  const kinds = fc.constantFrom(...ARRIVALS.filter((k) => k !== "ramp"));
  const options = fc.record({
    kind: kinds,
    rate: fc.double({ min: 0.1, max: 1000, noNaN: true }),
    burstiness: fc.double({ min: 0.3, max: 10, noNaN: true }),
  });
  fc.assert(
    fc.property(options, fc.nat(), (options, seed) => {
      const t = times(options, seed);
      assert.ok(gaps(t).every((gap) => gap >= 0));
      assert.ok(Math.abs(COUNT / t.at(-1)! / options.rate - 1) < NOISE, `${COUNT / t.at(-1)!}`);
      assert.deepEqual(times(options, seed, 50), t.slice(0, 50));
      if (options.kind !== "constant") assert.notDeepEqual(times(options, seed + 1, 50), t.slice(0, 50));
    }),
    { numRuns: 30 },
  );
});

Deno.test("the gaps' variance is that of the process: 0, 1, or 1 / burstiness", () => {
  const t = times({ kind: "constant", rate: 4 });
  assert.deepEqual(t.slice(0, 3), [0, 0.25, 0.5]);
  assert.ok(Math.abs(relativeVariance(gaps(times({ kind: "poisson" }))) - 1) < NOISE);
  for (const burstiness of [0.25, 0.5, 1, 4]) {
    const variance = relativeVariance(gaps(times({ kind: "burst", burstiness }, 3)));
    assert.ok(Math.abs(variance * burstiness - 1) < 2 * NOISE, `${burstiness}: ${variance}`);
  }
});

Deno.test("a ramp's rate grows linearly, up or down, and stays at its end", () => {
  for (const [from, rate] of [[1, 9], [9, 1], [5, 5]]) {
    const t = times({ kind: "ramp", rate, ramp: { from, seconds: 1000 } }, 2);
    const between = (a: number, b: number) => t.filter((x) => x >= a && x < b).length;
    for (const start of [0, 400, 800]) {
      const expected = 200 * (from + (rate - from) * (start + 100) / 1000);
      assert.ok(Math.abs(between(start, start + 200) / expected - 1) < NOISE, `${from}-${rate} at ${start}`);
    }
    const after = t.filter((x) => x >= 1000), rateAfter = after.length / (t.at(-1)! - 1000);
    assert.ok(Math.abs(rateAfter / rate - 1) < NOISE, `${rateAfter}`);
  }
});
