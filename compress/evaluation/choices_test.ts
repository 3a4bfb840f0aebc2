import assert from "node:assert/strict";
import { choiceAccuracy } from "./choices.ts";
import { BigramEngine } from "./testing/bigram_engine.ts";

/** a = 0, b = 1, any other character = 2. After 2: a .5, b .3; after a: a .9; after b: b .1. */
const engine = (contextLength?: number) =>
  new BigramEngine([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.5, 0.3, 0.2]], contextLength);
const tokenizer = { encode: (text: string) => [...text].map((c) => c === "a" ? 0 : c === "b" ? 1 : 2) };
const model = (o: { engine?: BigramEngine; tokenizer?: typeof tokenizer; bos?: number | null } = {}) => ({
  engine: engine(),
  tokenizer,
  bos: null,
  ...o,
});
const question = (context: string, choices: string[], answer: number) => ({ context, choices, answer });

Deno.test("choiceAccuracy() takes the likeliest choice: in sum, by token, by character", async () => {
  // After "x": " aaa" has .2 x .5 x .9 x .9 = .081, " b" .2 x .3 = .06, " bb" .2 x .3 x .1 = .006.
  const sum = await choiceAccuracy(model(), [question("x", ["bb", "aaa", "b"], 1)]);
  assert.deepEqual([sum.accuracy, sum.accuracyNorm, sum.count], [1, 1, 1]);
  // "c" has .2 x .2 = .04, less than " a" .1 and more than " aaa"; by token .2, against .316 and .533.
  const found = await choiceAccuracy(model(), [
    question("x", ["a", "aaa"], 0), // .1 > .081, but .316 < .533 by token, .1 < .433 by character
    question("x", ["a", "aaa"], 1),
    question("x", ["c", "b"], 1),
    question("x", ["b", "c"], 1),
  ]);
  assert.deepEqual([found.accuracy, found.accuracyNorm, found.accuracyNormChars], [0.5, 0.5, 0.5]);
  assert.equal(found.standardError, Math.sqrt(0.25 / 3));
});

Deno.test("choiceAccuracy() by token and by character differ where tokens have several characters", async () => {
  // One token for "cccc": by token it loses (.2 < .316), by character it wins (.04^(1/4) = .447 > .1).
  const whole = { encode: (text: string) => tokenizer.encode(text.replaceAll("cccc", "c")) };
  const found = await choiceAccuracy(model({ tokenizer: whole }), [question("x", ["a", "cccc"], 0)]);
  assert.deepEqual([found.accuracy, found.accuracyNorm, found.accuracyNormChars], [1, 1, 0]);
});

Deno.test("choiceAccuracy() asks for the choice's tokens alone, first choices before the others", async () => {
  const m = model({ bos: 2 });
  await choiceAccuracy(m, [question("ab", ["a", "b"], 0), question("b", ["a", "b"], 0)]);
  assert.deepEqual(m.engine.asked, [
    { ids: [2, 0, 1, 2, 0], from: 2 },
    { ids: [2, 1, 2, 0], from: 1 },
    { ids: [2, 0, 1, 2, 1], from: 2 },
    { ids: [2, 1, 2, 1], from: 1 },
  ]);
});

Deno.test("choiceAccuracy() keeps the end of what is too long", async () => {
  const m = model({ engine: engine(4) });
  await choiceAccuracy(m, [question("xaabb", ["aa", "bbbbbb"], 0)]);
  assert.deepEqual(m.engine.asked, [
    { ids: [1, 1, 2, 0, 0], from: 1 },
    { ids: [1, 1, 1, 1, 1], from: 0 },
  ]);
});
