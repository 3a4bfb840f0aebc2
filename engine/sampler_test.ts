import assert from "node:assert/strict";
import { type LogitsRow, logprobOf, logprobs, Sampler, type SamplingKernels } from "./sampler.ts";
import { GREEDY, type SamplingOptions } from "./types.ts";

const VOCAB = 50;

/** The kernels in plain code over one buffer: the sampler's own logic is tested without WASM. */
function row(logits: readonly number[]): LogitsRow {
  const buffer = new ArrayBuffer(4096);
  const floats = new Float32Array(buffer), ints = new Int32Array(buffer);
  const address = 64, candidates = 2048;
  floats.set(logits, address / 4);
  const view = (x: number, n: number) => floats.subarray(x / 4, x / 4 + n);
  const kernels: SamplingKernels = {
    argmax: (x, n) => view(x, n).indexOf(Math.max(...view(x, n))),
    max: (x, n) => Math.max(...view(x, n)),
    log_sum_exp: (x, n, t) => Math.log(view(x, n).reduce((s, l) => s + Math.exp(l * t), 0)),
    select_at_least: (x, n, threshold, out) => {
      let k = 0;
      view(x, n).forEach((l, i) => {
        if (l >= threshold) ints[out / 4 + k++] = i;
      });
      return k;
    },
  };
  return { kernels, floats, ints, address, vocab: logits.length, candidates };
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
