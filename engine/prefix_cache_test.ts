import assert from "node:assert/strict";
import { PrefixCache, ROOT } from "./prefix_cache.ts";

const tokens = Array.from({ length: 48 }, (_, i) => i * 4099);

Deno.test("PrefixCache finds a block after its own prefix only", () => {
  const cache = new PrefixCache();
  const first = cache.add(ROOT, tokens, 0, 7);
  const second = cache.add(first.prefix, tokens, 16, 3);
  assert.equal(cache.find(ROOT, tokens, 0)?.block, 7);
  assert.equal(cache.find(first.prefix, tokens, 16), second);
  assert.equal(cache.find(ROOT, tokens, 16), undefined);
  assert.equal(cache.find(second.prefix, tokens, 16), undefined);
});

Deno.test("PrefixCache tells tokens apart whose halves are alike", () => {
  const cache = new PrefixCache();
  cache.add(ROOT, tokens, 0, 0);
  for (const change of [1, 0x10000, 0x80000000]) {
    const other = [...tokens];
    other[5] += change;
    assert.equal(cache.find(ROOT, other, 0), undefined);
  }
});

Deno.test("PrefixCache forgets a deleted block and refuses one that it knows", () => {
  const cache = new PrefixCache();
  cache.add(ROOT, tokens, 0, 1);
  assert.throws(() => cache.add(ROOT, tokens, 0, 2), RangeError);
  assert.throws(() => cache.add(ROOT, tokens, 16, 1), RangeError);
  cache.delete(1);
  cache.delete(1);
  assert.equal(cache.find(ROOT, tokens, 0), undefined);
  assert.equal(cache.size, 0);
});
