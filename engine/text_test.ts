import assert from "node:assert/strict";
import fc from "fast-check";
import { loadTokenizer } from "../models/tokenizer.ts";
import { byteTokenizer, EOS, FakeEngine } from "../tests/fake_engine.ts";
import { generateText, StopMatcher, type TextEvent } from "./text.ts";
import { GREEDY } from "./types.ts";

async function run(script: string, stop: string[] = [], maxTokens = 100) {
  const engine = new FakeEngine({ script });
  const request = { promptIds: [1], maxTokens, stopIds: [EOS], sampling: GREEDY, logprobs: 0, stop };
  const events: TextEvent[] = [];
  for await (const event of generateText(engine, byteTokenizer, request)) events.push(event);
  const end = events.at(-1)!;
  assert.ok(end.type === "end");
  const text = events.map((e) => e.type === "prompt" ? "" : e.text).join("");
  const tokens = events.flatMap((e) => e.type === "prompt" ? [] : e.tokens);
  return { engine, events, end, text, tokens };
}

Deno.test("generateText() joins to the whole text, characters whole", async () => {
  const { events, text, end, tokens } = await run("naïve 🌾 día");
  assert.equal(text, "naïve 🌾 día");
  assert.ok(events.every((e) => e.type === "prompt" || !e.text.includes("\ufffd")));
  assert.equal(end.reason, "stop");
  assert.equal(tokens.length, new TextEncoder().encode(text).length);
});

Deno.test("generateText() never emits a stop string, also across tokens, and frees the sequence", async () => {
  const { text, end, tokens, engine } = await run("one two END three", ["END", "zzz"]);
  assert.equal(text, "one two ");
  assert.equal(end.stop, "END");
  assert.equal(tokens.length, 8);
  assert.equal(end.timings.completionTokens, 11);
  assert.equal(engine.running, 0);
});

Deno.test("generateText() shows text that only looked like a stop string", async () => {
  const { text, end } = await run("aEEENb EN", ["END"]);
  assert.equal(text, "aEEENb EN");
  assert.equal(end.stop, null);
});

Deno.test("generateText() reports where each token's text begins", async () => {
  const { tokens } = await run("aé!");
  assert.deepEqual(tokens.map((t) => t.offset), [0, 1, 1, 2]);
});

Deno.test("generateText() ends by length and without a tokenizer", async () => {
  const { end, text } = await run("abcdef", [], 3);
  assert.deepEqual([end.reason, text], ["length", "abc"]);
  const engine = new FakeEngine({ script: "ab" });
  const request = {
    promptIds: [1],
    maxTokens: 9,
    stopIds: [EOS],
    sampling: GREEDY,
    logprobs: null,
    stop: [],
  };
  const ids: number[] = [];
  for await (const e of generateText(engine, null, request)) {
    if (e.type !== "prompt") ids.push(...e.tokens.map((t) => t.id));
  }
  assert.deepEqual(ids, [97, 98]);
});

Deno.test("generateText() keeps the space between the prompt and a SentencePiece continuation", async () => {
  const tokenizer = loadTokenizer({
    tokenizer: {
      model: { type: "BPE", vocab: { "▁a": 0, "▁b": 1, "b": 2, "a": 3 }, merges: [] },
      decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "first" },
    },
    config: {},
    chatTemplate: null,
  });
  const engine = new FakeEngine({ script: "\0\x01\x02" });
  const request = { maxTokens: 3, stopIds: [], sampling: GREEDY, logprobs: null, stop: [] };
  let text = "";
  for await (const e of generateText(engine, tokenizer, { ...request, promptIds: [1] })) {
    if (e.type !== "prompt") text += e.text;
  }
  assert.equal(text, " a bb");
});

Deno.test("StopMatcher shows all text before the first stop string, however the text is cut", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 30 });
  const stop = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 });
  fc.assert(fc.property(letters, stop, fc.array(fc.nat(30)), (text, stop, cuts) => {
    const borders = [...new Set([0, ...cuts.filter((c) => c < text.length), text.length])].sort((a, b) =>
      a - b
    );
    const matcher = new StopMatcher([stop]);
    let shown = "", met = false;
    for (let i = 1; i < borders.length && !met; i++) {
      const step = matcher.push(text.slice(borders[i - 1], borders[i]));
      shown += step.text;
      met = step.stop !== null;
    }
    const at = text.indexOf(stop);
    assert.equal(met, at >= 0);
    assert.equal(met ? shown : shown + matcher.end(), at >= 0 ? text.slice(0, at) : text);
  }));
});
