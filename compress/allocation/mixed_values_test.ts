import assert from "node:assert/strict";
import fc from "fast-check";
import { recipeSchema, VALUE_BITS } from "../../models/recipe.ts";
import type { CodedValues } from "../quantizers/grid.ts";
import { blockValues, mixedValues } from "./mixed_values.ts";

const KINDS = ["int2", "int3", "int4", "int5", "int8"] as const satisfies readonly CodedValues[];
const bitsOf = (values: readonly CodedValues[]) => values.map((kind) => VALUE_BITS[kind]);
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

const ratio = fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom(0, 0.01, 0.02));
const asked = fc.record({
  ratios: fc.array(ratio, { minLength: 1, maxLength: 40 }),
  values: fc.constantFrom(...KINDS),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
  lambda: fc.double({ min: 0, max: 0.5, noNaN: true }),
}).map(({ share, values, ...rest }) => ({
  ...rest,
  values,
  meanBits: 2 + share * (VALUE_BITS[values] - 2),
}));

Deno.test("mixedValues() spends the mean to less than any block's next width, never more", () => {
  fc.assert(fc.property(asked, ({ ratios, ...options }) => {
    const bits = bitsOf(mixedValues(ratios, options)), left = options.meanBits * ratios.length - sum(bits);
    assert.ok(left > -1e-6, `${left} bits too many`);
    const most = VALUE_BITS[options.values];
    for (const own of bits) {
      assert.ok(own <= most);
      const next = KINDS.map((kind) => VALUE_BITS[kind]).find((width) => width > own && width <= most);
      assert.ok(next === undefined || next - own > left, `${left} bits left beside a block of ${own}`);
    }
  }));
});

Deno.test("mixedValues() never gives a block of more outliers fewer bits", () => {
  fc.assert(fc.property(asked, ({ ratios, ...options }) => {
    const bits = bitsOf(mixedValues(ratios, options));
    ratios.forEach((a, i) => ratios.forEach((b, j) => assert.ok(a <= b || bits[i] >= bits[j], `${i} ${j}`)));
  }));
});

Deno.test("mixedValues() of a mean that is a width gives it to all, for equal ratios and for λ = 0", () => {
  fc.assert(fc.property(fc.constantFrom(...KINDS), asked, (kind, { ratios, lambda }) => {
    const options = { meanBits: VALUE_BITS[kind], values: "int8" } as const;
    for (
      const found of [
        mixedValues(ratios, { ...options, lambda: 0 }),
        mixedValues(ratios.map(() => ratios[0]), { ...options, lambda }),
      ]
    ) {
      assert.ok(found.every((values) => values === kind), `${found}`);
    }
  }));
});

Deno.test("mixedValues() spreads bits 16 λ apart at most, about their mean", () => {
  const ratios = [0.01, 0.05, 0.02, 0.03, 0.04, 0.03], values = "int8";
  const of = (meanBits: number, lambda: number) => bitsOf(mixedValues(ratios, { meanBits, lambda, values }));
  assert.deepEqual(of(4, 0.08), [3, 5, 4, 4, 4, 4]);
  assert.deepEqual(of(3.5, 0.08), [3, 4, 3, 4, 4, 3]);
  assert.deepEqual(of(4, 0.25), [3, 5, 3, 4, 5, 4]); // 5.5 and 6 wanted: 5, and the bit left over where 2 had been
  assert.deepEqual(bitsOf(mixedValues(ratios, { meanBits: 3, lambda: 0.25, values: "int4" })), [
    ...[2, 4, 2, 3, 4, 3],
  ]);
  assert.deepEqual(of(8, 0.08), ratios.map(() => 8));
  assert.deepEqual(of(2, 0.08), ratios.map(() => 2));
});

Deno.test("blockValues() are the recipe's unless a mean is asked for", () => {
  const ratios = [1, 2];
  assert.deepEqual(blockValues(recipeSchema.parse({ values: "int4" }), { blocks: 2, ratios }), [
    ...["int4", "int4"],
  ]);
  assert.deepEqual(blockValues(recipeSchema.parse({ mean_bits: 4 }), { blocks: 2, ratios }), [
    ...["int3", "int5"],
  ]);
});
