import assert from "node:assert/strict";
import fc from "fast-check";
import { LINEAR_NAMES, type LinearKind, type ModelSpec } from "../../models/spec.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { chooseKept, type PruningGoal, reachOf } from "./choose.ts";
import { Elimination } from "./elimination.ts";
import { channelLosses, headChoices } from "./losses.ts";
import { blockParameters, channelUnit, legalSizes, withSizes } from "./sizes.ts";
import { cappedRates, checkStructuredRate, largestRate } from "./targets.ts";

const SMOLLM2 = SYNTHETIC_SPECS["smollm2-135m"];
const sized = (heads: number, kvHeads: number, intermediateSize: number, gated = true): ModelSpec => ({
  ...SMOLLM2,
  attention: { ...SMOLLM2.attention, heads, kvHeads },
  mlp: { ...SMOLLM2.mlp, intermediateSize, gated },
});
const anyCase = fc.record({
  kvHeads: fc.integer({ min: 1, max: 4 }),
  groupSize: fc.integer({ min: 1, max: 4 }),
  channels: fc.integer({ min: 1, max: 1300 }),
  gated: fc.boolean(),
  rate: fc.double({ min: 0, max: 0.95, noNaN: true }),
  dense: fc.constantFrom<LinearKind[]>([], ["q"], ["v"], ["down"], ["k", "up"]),
  seed: fc.integer({ min: 1, max: 1000 }),
});
const values = (n: number, seed: number) => Array.from({ length: n }, (_, i) => (i * 7919 + seed * 31) % 101);

const linalg: Linalg = { multiply: () => Promise.reject(new Error("No H, no products")) };

/** Chooses by losses that only add up: inputs that know nothing of each other. */
async function choose(
  spec: ModelSpec,
  losses: { readonly heads: readonly number[]; readonly channels: readonly number[] },
  goal: PruningGoal,
) {
  const width = spec.attention.headDim, reach = reachOf(spec, goal);
  const layer = (d: number[]) => {
    const W = matrix(1, d.length, new Float32Array(d.length).fill(1));
    return Elimination.of(W, { d: Float32Array.from(d), H: null }, linalg);
  };
  const o = await layer(
    losses.heads.flatMap((loss) => new Array<number>(width).fill(Math.sqrt(loss / width))),
  );
  const down = await layer(losses.channels.map(Math.sqrt));
  return chooseKept(spec, {
    heads: await headChoices(o, spec.attention, reach),
    channels: await channelLosses(down, reach.channels),
  }, goal);
}

Deno.test("chooseKept() leaves a block whose shapes are legal, near the target, with layers that must keep theirs", async () => {
  await fc.assert(
    fc.asyncProperty(anyCase, async ({ kvHeads, groupSize, channels, gated, rate, dense, seed }) => {
      const spec = sized(kvHeads * groupSize, kvHeads, channels, gated);
      const all = blockParameters(spec), target = rate * all;
      const options = { target, dense };
      const kept = await choose(spec, {
        heads: values(kvHeads * groupSize, seed),
        channels: values(channels, seed),
      }, options);
      const { sizes } = kept;
      assert.deepEqual(
        [kept.heads.length, kept.kvHeads.length, kept.channels.length],
        [sizes.heads, sizes.kvHeads, sizes.intermediateSize],
      );
      for (const list of [kept.heads, kept.kvHeads, kept.channels]) {
        assert.ok(list.length > 0 && list.every((x, i) => i === 0 || x > list[i - 1]));
      }
      // Every kept group has as many query heads, and no other group has any.
      const groups = kept.heads.map((head) => Math.floor(head / groupSize));
      assert.deepEqual([...new Set(groups)], kept.kvHeads);
      assert.ok(
        kept.kvHeads.every((g) => groups.filter((x) => x === g).length === sizes.heads / sizes.kvHeads),
      );
      if (dense.includes("q")) assert.equal(sizes.heads, kvHeads * groupSize);
      if (dense.includes("v") || dense.includes("k")) assert.equal(sizes.kvHeads, kvHeads);
      if (dense.includes("down") || dense.includes("up")) assert.equal(sizes.intermediateSize, channels);
      // No legal size is nearer by more than half a unit.
      const distance = (s: typeof sizes) => Math.abs(all - blockParameters(withSizes(spec, s)) - target);
      const nearest = Math.min(...legalSizes(spec, dense).map(distance));
      const unit = channelUnit(channels) * (gated ? 3 : 2) * spec.hiddenSize;
      assert.ok(distance(sizes) <= Math.max(nearest, unit / 2));
    }),
    { numRuns: 200 },
  );
});

Deno.test("chooseKept() takes what is worth least, attention and FFN compared", async () => {
  const spec = sized(4, 2, 128), target = 2 * 2 * 64 * 576; // one query head of each group, or 85.3 channels
  const heads = [5, 1, 2, 6], channels = Array.from({ length: 128 }, (_, i) => i);
  const cheap = await choose(spec, { heads, channels: channels.map((x) => x + 100) }, { target, dense: [] });
  assert.deepEqual(cheap.heads, [0, 3]);
  assert.equal(cheap.channels.length, 128);
  const dear = await choose(spec, { heads: heads.map((x) => x * 1e6), channels }, { target, dense: [] });
  assert.deepEqual(dear.heads, [0, 1, 2, 3]);
  assert.deepEqual(dear.channels, channels.slice(80)); // units of 16: 80 are nearest
});

Deno.test("legalSizes() keeps a group, a head and a unit, in whole chunks of wide FFNs", () => {
  const sizes = legalSizes(SMOLLM2, []);
  assert.deepEqual(sizes[0], { heads: 9, kvHeads: 3, intermediateSize: 1536 });
  assert.deepEqual(sizes.at(-1), { heads: 1, kvHeads: 1, intermediateSize: 64 });
  assert.equal(sizes.length, 3 * 3 * 24);
  assert.ok(sizes.every((s) => s.intermediateSize % 64 === 0));
  // The first unit that goes is what is left over of whole ones.
  assert.deepEqual(legalSizes(sized(1, 1, 1100), []).slice(0, 3).map((s) => s.intermediateSize), [
    1100,
    1088,
    1024,
  ]);
});

Deno.test("cappedRates() keeps the mean, and no rate above what a block can lose", () => {
  const rates = cappedRates([0.1, 0.5, 0.9], 0.6);
  assert.ok(Math.abs(rates.reduce((a, b) => a + b) / 3 - 0.5) < 1e-9 && rates.every((r) => r <= 0.6));
  assert.deepEqual(cappedRates([0.1, 0.2], 0.6), [0.1, 0.2]);
});

Deno.test("checkStructuredRate() says what can go", () => {
  checkStructuredRate(SMOLLM2, { rate: 0.9, dense: [] });
  assert.ok(largestRate(SMOLLM2, { dense: [] }) > 0.9);
  const dense = ["gate", "q"] as LinearKind[];
  assert.throws(() => checkStructuredRate(SMOLLM2, { rate: 0.1, dense }), {
    code: "invalid_recipe",
    message: /hold 0\.000, since gate, q keep their shapes/,
  });
  checkStructuredRate(SMOLLM2, { rate: 0, dense: [...LINEAR_NAMES] });
});
