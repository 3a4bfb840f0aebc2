import assert from "node:assert/strict";
import fc from "fast-check";
import { logitsScratchBytes } from "../kernels/abi.ts";
import { bindKernels, createMemory, loadKernelModules } from "../kernels/load.ts";
import { Random } from "./random.ts";
import { type LogitsRow, logprobOf, logprobs, Sampler } from "./sampler.ts";
import { GREEDY, type SamplingOptions } from "./types.ts";

const VOCAB = 50;
const LARGEST = 5000;
const ADDRESS = 1024, CANDIDATES = ADDRESS + LARGEST * 4;

const memory = createMemory(CANDIDATES + LARGEST * 4 + logitsScratchBytes(LARGEST));
const { base } = bindKernels(await loadKernelModules(["base"]), memory);
const floats = new Float32Array(memory.buffer), ints = new Int32Array(memory.buffer);

function row(logits: ArrayLike<number>): LogitsRow {
  floats.set(logits, ADDRESS / 4);
  return { kernels: base, floats, ints, address: ADDRESS, vocab: logits.length, candidates: CANDIDATES };
}

const ramp = Array.from({ length: VOCAB }, (_, i) => Math.sin(i) * 3);
const options = (o: Partial<SamplingOptions>): SamplingOptions => ({ ...GREEDY, temperature: 1, ...o });

function histogram(o: Partial<SamplingOptions>, draws = 20_000): number[] {
  const counts = new Array(VOCAB).fill(0);
  const sampler = new Sampler(options(o), []);
  for (let i = 0; i < draws; i++) counts[sampler.sample(row(ramp))]++;
  return counts.map((c) => c / draws);
}

function softmax(logits: readonly number[], temperature: number): number[] {
  const e = logits.map((l) => Math.exp(l / temperature));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / sum);
}

// 20,000 draws: standard error of a share is at most 0.0036; 5 of them.
const SHARE_TOLERANCE = 0.018;

Deno.test("Sampler draws from the softmax at the temperature asked for", () => {
  for (const temperature of [0.5, 1, 2]) {
    const expected = softmax(ramp, temperature);
    histogram({ temperature, seed: 7 }).forEach((p, i) =>
      assert.ok(Math.abs(p - expected[i]) < SHARE_TOLERANCE)
    );
  }
});

Deno.test("Sampler is greedy at temperature 0 and repeatable by seed above it", () => {
  const best = ramp.indexOf(Math.max(...ramp));
  assert.equal(new Sampler(GREEDY, []).sample(row(ramp)), best);
  const run = (seed: number) => {
    const s = new Sampler(options({ seed }), []);
    return Array.from({ length: 20 }, () => s.sample(row(ramp)));
  };
  assert.deepEqual(run(3), run(3));
  assert.notDeepEqual(run(3), run(4));
});

Deno.test("Sampler keeps to top-k, top-p and min-p", () => {
  const order = ramp.map((l, i) => [l, i]).sort((a, b) => b[0] - a[0]).map(([, i]) => i);
  const support = (h: number[]) => new Set(h.flatMap((p, i) => p > 0 ? [i] : []));
  assert.deepEqual(support(histogram({ topK: 3 })), new Set(order.slice(0, 3)));
  const p = softmax(ramp, 1);
  let sum = 0, n = 0;
  while (sum < 0.5) sum += p[order[n++]];
  assert.deepEqual(support(histogram({ topP: 0.5 })), new Set(order.slice(0, n)));
  const allowed = new Set(order.filter((i) => p[i] >= 0.2 * p[order[0]]));
  assert.deepEqual(support(histogram({ minP: 0.2 })), allowed);
});

Deno.test("Sampler applies logit bias and penalties", () => {
  assert.equal(new Sampler(options({ temperature: 0, logitBias: [[17, 100]] }), []).sample(row(ramp)), 17);
  const best = ramp.indexOf(Math.max(...ramp));
  const frequency = new Sampler(options({ temperature: 0, frequencyPenalty: 2 }), []);
  assert.equal(frequency.sample(row(ramp)), best);
  assert.notEqual(frequency.sample(row(ramp)), best);
  assert.notEqual(new Sampler(options({ temperature: 0, repeatPenalty: 5 }), [best]).sample(row(ramp)), best);
});

Deno.test("logprobs() reports the untouched distribution, likeliest first", () => {
  const r = row(ramp);
  const p = softmax(ramp, 1);
  const report = logprobs(r, 5);
  r.floats.fill(0);
  const { logprob, top } = report.of(11);
  assert.ok(Math.abs(logprob - Math.log(p[11])) < 1e-6);
  assert.equal(top.length, 5);
  assert.deepEqual(
    top.map(([t]) => t),
    p.map((x, i) => [x, i]).sort((a, b) => b[0] - a[0]).slice(0, 5).map(([, i]) => i),
  );
  assert.ok(Math.abs(logprobOf(row(ramp), 11) - Math.log(p[11])) < 1e-6);
});

/** What may be drawn, in plain code: by falling logit, ties to the lower id. */
function allowed(logits: readonly number[], { temperature, topK, topP, minP }: SamplingOptions): number[] {
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  const top = order.slice(0, topK || undefined);
  const weights = top.map((t) => Math.exp((logits[t] - logits[top[0]]) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  return top.filter((_, i) => {
    const kept = i === 0 || sum < topP * total;
    sum += weights[i];
    return kept && weights[i] >= minP;
  });
}

Deno.test("Sampler draws exactly what top-k, top-p and min-p allow, whatever the row", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: LARGEST }),
      fc.integer(),
      fc.constantFrom(0, 1, 5, 40, 300),
      fc.constantFrom(0, 0.1, 0.5, 0.9, 1),
      fc.constantFrom(0, 0.05),
      fc.constantFrom(0.3, 1),
      (vocab, seed, topK, topP, minP, temperature) => {
        const random = new Random(seed);
        // A few exact values: ties are the rule.
        const logits = Array.from(
          { length: vocab },
          () => Math.round(Math.log(random.next() + 1e-9) * -4) / 4,
        );
        const o = options({ topK, topP, minP, temperature, seed });
        const may = new Set(allowed(logits, o));
        const sampler = new Sampler(o, []);
        for (let i = 0; i < 30; i++) assert.ok(may.has(sampler.sample(row(logits))));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("logprobs() finds the top tokens of a row of many blocks, ties to the lower id", () => {
  const logits = Array.from({ length: LARGEST }, (_, i) => Math.floor(Math.sin(i * i) * 40) / 4);
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  for (const count of [1, 5, 20]) {
    assert.deepEqual(logprobs(row(logits), count).of(0).top.map(([t]) => t), order.slice(0, count));
  }
});

Deno.test("Sampler chooses only what a mask allows, whatever the options, in the shares that are left", () => {
  fc.assert(fc.property(
    fc.record({
      temperature: fc.constantFrom(0, 0.5, 1, 2),
      topK: fc.constantFrom(0, 1, 5, 100),
      topP: fc.constantFrom(1, 0.9, 0.1),
      minP: fc.constantFrom(0, 0.3),
      logitBias: fc.constantFrom<[number, number][]>([], [[3, 100]]),
      frequencyPenalty: fc.constantFrom(0, 2),
      seed: fc.nat(),
    }),
    fc.uniqueArray(fc.nat(VOCAB - 1), { minLength: 1 }),
    (o, allowed) => {
      const sampler = new Sampler(options(o), []);
      const mask = maskOf(allowed);
      for (let i = 0; i < 5; i++) assert.ok(allowed.includes(sampler.sample(row(ramp), mask)));
    },
  ));
  const allowed = [2, 7, 40], mask = maskOf(allowed), sampler = new Sampler(options({ seed: 1 }), []);
  const counts = new Map<number, number>();
  for (let i = 0; i < 20_000; i++) {
    const token = sampler.sample(row(ramp), mask);
    counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  softmax(allowed.map((t) => ramp[t]), 1).forEach((p, i) =>
    assert.ok(Math.abs((counts.get(allowed[i]) ?? 0) / 20_000 - p) < SHARE_TOLERANCE)
  );
});

function maskOf(allowed: readonly number[]): Int32Array {
  const mask = new Int32Array(Math.ceil(VOCAB / 32));
  for (const t of allowed) mask[t >> 5] |= 1 << (t & 31);
  return mask;
}
