import assert from "node:assert/strict";
import fc from "fast-check";
import { rollingWindows, scoredTokens, type TextWindow, textWindows } from "./text_window.ts";

const ids = (length: number) => Array.from({ length }, (_, i) => i);
/** Tokens that are scored, in order; ids are their own positions. */
const targets = (windows: readonly TextWindow[]) => windows.flatMap((w) => w.ids.slice(w.from + 1));

Deno.test("textWindows() scores each window alone and drops a lone last token", () => {
  assert.deepEqual(textWindows(ids(7), { window: 3 }), [
    { ids: [0, 1, 2], from: 0 },
    { ids: [3, 4, 5], from: 0 },
  ]);
  assert.deepEqual(targets(textWindows(ids(8), { window: 3 })), [1, 2, 4, 5, 7]);
  assert.deepEqual(textWindows([1], { window: 3 }), []);
});

Deno.test("textWindows() with BOS scores the first token of every window too", () => {
  assert.deepEqual(textWindows(ids(4), { window: 3, bos: 9 }), [
    { ids: [9, 0, 1, 2], from: 0 },
    { ids: [9, 3], from: 0 },
  ]);
});

Deno.test("textWindows() that overlap score only what is new", () => {
  assert.deepEqual(textWindows(ids(8), { window: 4, stride: 2 }), [
    { ids: [0, 1, 2, 3], from: 0 },
    { ids: [2, 3, 4, 5], from: 1 },
    { ids: [4, 5, 6, 7], from: 1 },
  ]);
  assert.deepEqual(textWindows(ids(5), { window: 4, stride: 2, bos: 9 })[1], { ids: [9, 2, 3, 4], from: 2 });
  assert.throws(() => textWindows(ids(8), { window: 4, stride: 5 }), RangeError);
});

Deno.test("rollingWindows() roll as lm-evaluation-harness does: the last one looks back as far as it can", () => {
  const roll = (length: number) => rollingWindows(ids(length), { maxLength: 4, prefix: 99 });
  assert.deepEqual(roll(3), [{ ids: [99, 0, 1, 2], from: 0 }]);
  assert.deepEqual(roll(4), [{ ids: [99, 0, 1, 2, 3], from: 0 }]);
  assert.deepEqual(roll(10), [
    { ids: [99, 0, 1, 2, 3], from: 0 },
    { ids: [3, 4, 5, 6, 7], from: 0 },
    { ids: [5, 6, 7, 8, 9], from: 2 },
  ]);
  assert.deepEqual(roll(0), []);
});

Deno.test("every protocol scores every token at most once, in order, within the window", () => {
  const lengths = fc.record({
    length: fc.nat(60),
    window: fc.integer({ min: 2, max: 20 }),
    stride: fc.integer({ min: 1, max: 20 }),
  });
  fc.assert(fc.property(lengths, ({ length, window, stride }) => {
    const rolling = rollingWindows(ids(length), { maxLength: window, prefix: 999 });
    assert.deepEqual(targets(rolling), ids(length));
    assert.ok(rolling.every((w) => w.ids.length <= window + 1 && scoredTokens(w) > 0));
    fc.pre(stride < window);
    const sliding = textWindows(ids(length), { window, stride });
    assert.deepEqual(targets(sliding), ids(length).slice(1));
    assert.ok(sliding.slice(1).every((w) => w.ids.length <= window && w.from + 1 >= window - stride));
    const begun = textWindows(ids(length), { window, stride, bos: 999 });
    assert.deepEqual(targets(begun), ids(length));
  }));
});
