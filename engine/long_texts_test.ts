import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { OatmillError } from "../errors.ts";
import { readTokenizerFiles } from "../models/tokenizer_files.ts";
import { loadTokenizer } from "../models/tokenizer.ts";
import { decodeTokens, encodeTexts, LongTexts } from "./long_texts.ts";
import type { Engine } from "./types.ts";

const FOLDER = fileURLToPath(new URL("../models/default", import.meta.url));
const tokenizer = loadTokenizer((await readTokenizerFiles(FOLDER))!);
const LONG = "Once upon a time there was a mill. ".repeat(2_000);
const modelOf = (longTexts: LongTexts, contextLength = 100_000) => ({
  engine: { contextLength } as Engine, // all that is asked of it
  longTexts,
});
const code = (expected: string) => (error: unknown) =>
  error instanceof OatmillError && error.code === expected;

Deno.test("the tokens of long texts, and the text of many tokens, are what the caller's own thread would read", async () => {
  const longTexts = new LongTexts(FOLDER), model = modelOf(longTexts);
  try {
    for (const addSpecialTokens of [true, false]) {
      const texts = [LONG, "short", ""];
      const read = await encodeTexts(model, tokenizer, { texts, addSpecialTokens, param: "prompt" });
      assert.deepEqual(read, texts.map((text) => tokenizer.encode(text, { addSpecialTokens })));
    }
    const ids = tokenizer.encode(LONG + LONG + LONG + LONG, { addSpecialTokens: false });
    assert.ok(ids.length > 64 * 1024);
    assert.equal(await decodeTokens(model, tokenizer, { ids }), tokenizer.decode(ids));
  } finally {
    longTexts.close();
  }
});

Deno.test("a text that no context window holds is refused unread", async () => {
  const longTexts = new LongTexts("/nowhere"), model = modelOf(longTexts, 512);
  const options = { texts: ["a", "b".repeat(16 * 2 ** 20)], param: "prompt" };
  await assert.rejects(encodeTexts(model, tokenizer, options), code("context_length_exceeded"));
});

Deno.test("long texts wait in a queue with an end, a caller that left no longer waits, and close() ends all", async () => {
  const longTexts = new LongTexts(FOLDER), model = modelOf(longTexts);
  const abort = new AbortController();
  const first = encodeTexts(model, tokenizer, { texts: [LONG] });
  const left = encodeTexts(model, tokenizer, { texts: [LONG], signal: abort.signal });
  const waiting = Array.from({ length: 30 }, () => encodeTexts(model, tokenizer, { texts: [LONG] }));
  await assert.rejects(encodeTexts(model, tokenizer, { texts: [LONG] }), code("rate_limit_exceeded"));
  abort.abort();
  await assert.rejects(left, code("cancelled"));
  waiting.push(encodeTexts(model, tokenizer, { texts: [LONG] })); // in the place that is free
  assert.equal((await first)[0].length, tokenizer.encode(LONG).length);
  longTexts.close();
  const ended = (await Promise.allSettled(waiting)).filter(({ status }) => status === "rejected");
  assert.ok(ended.length > 0);
  await assert.rejects(encodeTexts(model, tokenizer, { texts: [LONG] }), code("unavailable"));
});

Deno.test("a tokenizer that cannot be read is an error of the request", async () => {
  const longTexts = new LongTexts("/nowhere");
  await assert.rejects(
    encodeTexts(modelOf(longTexts), tokenizer, { texts: [LONG] }),
    code("unavailable"),
  );
  longTexts.close();
});
