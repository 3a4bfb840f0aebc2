import assert from "node:assert/strict";
import fc from "fast-check";
import { compare, divergence } from "./divergence.ts";
import { BigramEngine } from "./testing/bigram_engine.ts";

/** Logits are f32. */
const CLOSE = 1e-6;
const close = (a: number, b: number, what: string) =>
  assert.ok(Math.abs(a - b) < CLOSE, `${what}: ${a}, not ${b}`);
const logits = (...p: number[]) => Float32Array.from(p, (x) => Math.log(x) + 3);

Deno.test("compare() of two distributions, by hand", () => {
  const found = compare(logits(0.5, 0.25, 0.25), logits(0.25, 0.5, 0.25), 1);
  close(found.kl, 0.5 * Math.log(2) + 0.25 * Math.log(0.5), "KL");
  assert.equal(found.sameTop, false);
  close(Math.exp(found.reference), 0.25, "the reference's probability");
  close(Math.exp(found.model), 0.5, "the model's probability");
});

Deno.test("compare() is never negative, and 0 exactly where the logits are equal", () => {
  const row = fc.array(fc.float({ min: -50, max: 50, noNaN: true }), { minLength: 2, maxLength: 20 });
  fc.assert(fc.property(row, row, (a, b) => {
    const n = Math.min(a.length, b.length);
    const p = Float32Array.from(a.slice(0, n)), q = Float32Array.from(b.slice(0, n));
    assert.ok(compare(p, q, 0).kl >= 0);
    assert.equal(compare(p, p, 0).kl, 0);
  }));
});

Deno.test("divergence() over windows: mean, agreement, change of probability, both perplexities", async () => {
  const reference = new BigramEngine([[1, 1], [1, 3]]), model = new BigramEngine([[1, 3], [1, 3]]);
  // Positions 0 -> 1, 1 -> 0 and, in the second window, 0 -> 0: after 1 both say the same.
  const windows = [{ ids: [0, 1, 0], from: 0 }, { ids: [0, 0], from: 0 }];
  const found = await divergence(reference, model, windows);
  const kl = 0.5 * Math.log(0.5 / 0.25) + 0.5 * Math.log(0.5 / 0.75);
  assert.equal(found.tokens, 3);
  close(found.mean, kl * 2 / 3, "mean");
  close(found.median, kl, "median");
  close(found.max, kl, "most");
  assert.equal(found.top1Agreement, 1 / 3);
  // .5 -> .75, .25 -> .25, .5 -> .25
  close(found.meanProbabilityChange, 0, "mean change");
  close(found.rmsProbabilityChange, Math.sqrt(2 * 0.25 ** 2 / 3), "RMS change");
  close(found.referencePerplexity, (0.5 * 0.25 * 0.5) ** (-1 / 3), "reference");
  close(found.perplexity, (0.75 * 0.25 * 0.25) ** (-1 / 3), "model");
  const spread = 2 * (kl / 3) ** 2 + (2 * kl / 3) ** 2;
  close(found.standardError, Math.sqrt(spread / 2 / 3), "standard error");
});

Deno.test("divergence() holds few positions at once, in whole KV blocks", async () => {
  const vocab = 1 << 19; // 2 MiB a position: 16 fit
  const asked: [length: number, from: number][] = [];
  const row = new Float32Array(vocab);
  const flat = {
    vocabSize: vocab,
    logits: (ids: readonly number[], { from = 0 } = {}) => {
      asked.push([ids.length, from]);
      return Promise.resolve({ subarray: () => row } as unknown as Float32Array); // the same for every position
    },
  };
  const done: number[] = [];
  await divergence(flat, flat, [{ ids: Array(41).fill(0), from: 4 }], { onProgress: (n) => done.push(n) });
  assert.deepEqual(asked.filter((_, i) => i % 2 === 0), [[16, 4], [32, 16], [40, 32]]);
  assert.deepEqual(done, [12, 28, 36]);
});

Deno.test("divergence() refuses another vocabulary and a text without tokens", async () => {
  const two = new BigramEngine([[1, 1], [1, 1]]), one = new BigramEngine([[1]]);
  await assert.rejects(divergence(one, two, [{ ids: [0, 0], from: 0 }]), {
    code: "invalid_request",
    message: /vocabulary has 1 tokens, the model's 2/,
  });
  await assert.rejects(divergence(two, two, []), { code: "invalid_request" });
});
