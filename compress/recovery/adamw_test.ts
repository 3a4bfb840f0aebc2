import assert from "node:assert/strict";
import fc from "fast-check";
import { adamwStep, clipFactor } from "./adamw.ts";

/** Values are stored in f32 between steps; the reference keeps f64. */
const STORED_IN_F32 = 2e-6;

/** Algorithm 2 of arXiv 1711.05101, as it is written, for one value. */
function reference(
  start: number,
  gradients: readonly number[],
  { rate, betas: [b1, b2], epsilon, weightDecay }: typeof OPTIONS,
): number {
  let x = start, m = 0, v = 0;
  gradients.forEach((g, i) => {
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g ** 2;
    const mHat = m / (1 - b1 ** (i + 1)), vHat = v / (1 - b2 ** (i + 1));
    x -= rate * (mHat / (Math.sqrt(vHat) + epsilon) + weightDecay * x);
  });
  return x;
}

const OPTIONS = { rate: 1e-2, betas: [0.9, 0.95] as const, epsilon: 1e-8, weightDecay: 0 };

Deno.test("adamwStep() follows the paper over several steps, with and without decay", () => {
  const value = fc.float({ min: -10, max: 10, noNaN: true, noDefaultInfinity: true });
  const decay = fc.constantFrom(0, 0.1), scale = fc.constantFrom(1, 0.25);
  const property = fc.property(value, fc.array(value, { minLength: 1, maxLength: 12 }), decay, scale, run);
  fc.assert(property);
  function run(start: number, gradients: number[], weightDecay: number, gradientScale: number): void {
    const values = Float32Array.of(start), first = new Float32Array(1), second = new Float32Array(1);
    const options = { ...OPTIONS, weightDecay };
    // A gradient near 0 divides by epsilon: what f32 rounds away would matter.
    const some = gradients.map((g) => Math.abs(g) < 1e-3 ? 1 : g);
    some.forEach((g, i) => {
      adamwStep(values, Float32Array.of(g), { first, second }, { ...options, gradientScale, step: i + 1 });
    });
    const wanted = reference(start, some.map((g) => g * gradientScale), options);
    assert.ok(Math.abs(values[0] - wanted) <= STORED_IN_F32 * some.length * (1 + Math.abs(wanted)));
  }
});

Deno.test("clipFactor() shortens to the limit, leaves shorter gradients, and stops what is not finite", () => {
  assert.equal(clipFactor(4, 1), 0.25);
  assert.equal(clipFactor(0.5, 1), 1);
  assert.equal(clipFactor(0, 1), 1);
  for (const norm of [NaN, Infinity]) assert.equal(clipFactor(norm, 1), 0);
});
