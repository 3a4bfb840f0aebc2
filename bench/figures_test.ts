import assert from "node:assert/strict";
import { ratios, summarise } from "./figures.ts";

const rounds = [{ a: 3, b: 10 }, { a: 1, b: 40 }, { a: 2, b: 20 }, { a: 9, b: 30 }];

Deno.test("summarise() gives the median of each figure and how far its rounds lie apart", () => {
  assert.deepEqual(summarise(rounds), {
    median: { a: 2.5, b: 25 },
    spread: { a: { min: 1, q1: 1.75, q3: 4.5, max: 9 }, b: { min: 10, q1: 17.5, q3: 32.5, max: 40 } },
  });
});

Deno.test("ratios() compares round by round: a slow round of both does not count", () => {
  const twice = rounds.map(({ a, b }) => ({ a: 2 * a, b: b / 2 }));
  assert.deepEqual(ratios(twice, rounds), {
    median: { a: 2, b: 0.5 },
    spread: { a: { min: 2, q1: 2, q3: 2, max: 2 }, b: { min: 0.5, q1: 0.5, q3: 0.5, max: 0.5 } },
  });
});
