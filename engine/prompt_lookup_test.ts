import assert from "node:assert/strict";
import fc from "fast-check";
import { bestLength, PromptLookup } from "./prompt_lookup.ts";

const LONG = 1e6;
/** A text whose end occurred before, followed by 7, 8, 9. */
const QUOTE = [1, 2, 3, 7, 8, 9, 5, 6, 1, 2, 3];

/** Lets a lookup hear of `n` proposals that were all right. */
function trusted(n: number): PromptLookup {
  const lookup = new PromptLookup(LONG);
  for (let i = 0; i < n; i++) lookup.settle(1, lookup.propose(QUOTE, 1, 1).length);
  return lookup;
}

Deno.test("PromptLookup proposes what followed the newest occurrence of the last tokens", () => {
  assert.deepEqual(trusted(20).propose(QUOTE, 3, 1), [7, 8, 9]);
  assert.deepEqual(trusted(20).propose([...QUOTE, 4, 4, 1, 2, 3], 2, 1), [4, 4]);
  assert.deepEqual(trusted(0).propose([1, 2, 9, 5, 1, 2], 1, 1), [9], "two tokens are a match too");
  assert.deepEqual(trusted(20).propose([1, 2, 3, 4], 3, 1), []);
  assert.deepEqual(trusted(20).propose([4], 3, 1), []);
});

Deno.test("PromptLookup goes on repeating what repeats", () => {
  assert.deepEqual(trusted(20).propose([5, 1, 2, 3, 1, 2, 3], 5, 1), [1, 2, 3, 1, 2]);
});

Deno.test("PromptLookup leaves the last token to the sampler", () => {
  const proposed = (maxLength: number) => new PromptLookup(maxLength).propose(QUOTE, 7, 1).length;
  assert.equal(proposed(QUOTE.length + 1), 0);
  assert.equal(proposed(QUOTE.length + 2), 1);
});

Deno.test("PromptLookup drafts more when it was right, less in company, and rests when it was wrong", () => {
  assert.equal(trusted(0).propose(QUOTE, 7, 1).length, 1);
  assert.equal(trusted(40).propose(QUOTE, 7, 1).length, 7);
  assert.ok(trusted(6).propose(QUOTE, 7, 4).length < trusted(6).propose(QUOTE, 7, 1).length);
});

Deno.test("PromptLookup drafts rarely where it is never right, and finds out when it is again", () => {
  const lookup = new PromptLookup(LONG);
  let drafted = 0;
  for (let i = 0; i < 2000; i++) {
    const { length } = lookup.propose(QUOTE, 7, 1);
    drafted += length;
    if (length > 0) lookup.settle(length, 0);
  }
  assert.ok(drafted <= 40, `${drafted} rows of 2000`);
  let steps = 0;
  for (let run = 0; run < 5; steps++) {
    const { length } = lookup.propose(QUOTE, 7, 1);
    if (length > 0) lookup.settle(length, length);
    run = length > 2 ? run + 1 : 0;
    assert.ok(steps < 1200);
  }
});

Deno.test("bestLength() is where tokens a time are most", () => {
  assert.equal(bestLength(1, 0.3, 7), 7);
  assert.equal(bestLength(0.25, 0.3, 7), 0);
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      (share, cost) => {
        const rate = (k: number) => {
          let tokens = 1;
          for (let i = 1; i <= k; i++) tokens += share ** i;
          return tokens / (1 + k * cost);
        };
        const best = bestLength(share, cost, 7);
        for (let k = 0; k <= 7; k++) assert.ok(rate(k) <= rate(best) + 1e-12);
      },
    ),
  );
});
