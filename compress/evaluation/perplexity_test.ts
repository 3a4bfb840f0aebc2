import assert from "node:assert/strict";
import { countWords, tokenPerplexity, wordPerplexity } from "./perplexity.ts";
import { BigramEngine } from "./testing/bigram_engine.ts";

/** f32 log-likelihoods. */
const CLOSE = 1e-6;

Deno.test("tokenPerplexity() is exp of the mean over scored tokens", async () => {
  const engine = new BigramEngine([[1, 3], [1, 1]]);
  const found = await tokenPerplexity(engine, [0, 1, 1, 0, 1], { window: 3 });
  // 0 -> 1: 3/4, 1 -> 1: 1/2 in the first window, 0 -> 1: 3/4 in the second.
  const nll = -Math.log(3 / 4 * 1 / 2 * 3 / 4);
  assert.deepEqual([found.tokens, found.scored], [5, 3]);
  assert.ok(Math.abs(found.nll - nll) < CLOSE);
  assert.ok(Math.abs(found.perplexity - Math.exp(nll / 3)) < CLOSE);
  await assert.rejects(tokenPerplexity(engine, [1], { window: 3 }), { code: "invalid_request" });
  assert.equal((await tokenPerplexity(engine, [1], { window: 3, bos: 0 })).scored, 1);
});

Deno.test("wordPerplexity() is the mean per token times the tokens a word has", () => {
  assert.equal(wordPerplexity({ tokens: 6, scored: 5, nll: 0, perplexity: 4 }, 3), 16);
});

Deno.test("countWords() splits at white space", () => {
  assert.equal(countWords("  one two\n three\t"), 3);
  assert.equal(countWords(""), 1);
});
