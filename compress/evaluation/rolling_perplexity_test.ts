import assert from "node:assert/strict";
import { rollingPerplexity } from "./rolling_perplexity.ts";
import { BigramEngine } from "./testing/bigram_engine.ts";

/** f32 log-likelihoods. */
const CLOSE = 1e-6;

Deno.test("rollingPerplexity() scores detokenised pages and divides by the words of the raw ones", async () => {
  // Tokens: 0 "a", 1 ".", 2 the prefix. After the prefix "a" is certain, after "a" both are as likely, after "." "a" is.
  const engine = new BigramEngine([[1, 1, 0], [1, 0, 0], [1, 0, 0]]);
  const tokenizer = {
    encode: (text: string) => [...text].flatMap((c) => c === "a" ? [0] : c === "." ? [1] : []),
  };
  // " a . a \n" becomes " a. a\n": tokens a . a, log-likelihood of them 1 x 1/2 x 1; parts: "", a, ., a, "".
  const found = await rollingPerplexity({ engine, tokenizer }, [" a . a \n", "a"], {
    maxLength: 8,
    prefix: 2,
  });
  assert.deepEqual(engine.asked, [{ ids: [2, 0, 1, 0], from: 0 }, { ids: [2, 0], from: 0 }]);
  assert.deepEqual([found.pages, found.tokens, found.words, found.bytes], [2, 4, 6, 9]);
  assert.ok(Math.abs(found.nll - Math.log(2)) < CLOSE);
  assert.ok(Math.abs(found.wordPerplexity - 2 ** (1 / 6)) < CLOSE);
  assert.ok(Math.abs(found.bytePerplexity - 2 ** (1 / 9)) < CLOSE);
  assert.ok(Math.abs(found.bitsPerByte - 1 / 9) < CLOSE);
  await assert.rejects(rollingPerplexity({ engine, tokenizer }, [], { maxLength: 8, prefix: 2 }), {
    code: "invalid_request",
  });
});
