import assert from "node:assert/strict";
import fc from "fast-check";
import { rateAt, SequenceOrder, stepCount } from "./schedule.ts";

const OPTIONS = { learningRate: 2, warmupShare: 0.004, finalShare: 0.1 };

Deno.test("rateAt() rises over the warm-up and falls by a half cosine to the final share", () => {
  const steps = 1000, rate = (step: number) => rateAt(step, steps, OPTIONS);
  assert.deepEqual([0, 1, 2, 3].map((step) => Math.round(rate(step) * 100) / 100), [0.5, 1, 1.5, 2]);
  assert.ok(Math.abs(rate(500) - 2 * 0.55) < 1e-9);
  assert.ok(Math.abs(rate(999) - 0.2) < 1e-4);
  for (let step = 4; step < steps; step++) assert.ok(rate(step) < rate(step - 1));
});

Deno.test("rateAt() begins with the whole rate where the warm-up is shorter than a step", () => {
  assert.equal(rateAt(0, 20, OPTIONS), OPTIONS.learningRate);
});

Deno.test("stepCount() covers the tokens", () => {
  assert.deepEqual([0, 1, 1024, 1025].map((tokens) => stepCount({ tokens, batch: 2 }, 512)), [1, 1, 1, 2]);
});

Deno.test("SequenceOrder takes every sequence once before any a second time, repeatably by seed", () => {
  const sizes = fc.record({ count: fc.integer({ min: 1, max: 20 }), batch: fc.integer({ min: 1, max: 7 }) });
  fc.assert(fc.property(sizes, fc.nat(100), ({ count, batch }, seed) => {
    const take = () => {
      const order = new SequenceOrder(count, { batch, seed });
      return Array.from({ length: count }, (_, step) => order.of(step)).flat();
    };
    const taken = take();
    for (let epoch = 0; epoch < batch; epoch++) {
      assert.equal(new Set(taken.slice(epoch * count, (epoch + 1) * count)).size, count);
    }
    assert.deepEqual(take(), taken);
  }));
});
