import assert from "node:assert/strict";
import { KvBlocks } from "./kv_blocks.ts";

Deno.test("KvBlocks.take() gives empty blocks first, then the longest unused kept one", () => {
  const evicted: number[] = [];
  const blocks = new KvBlocks(3, (id) => evicted.push(id));
  const [a, b, c] = [blocks.take()!, blocks.take()!, blocks.take()!];
  assert.equal(blocks.take(), null);
  blocks.release(b, true);
  blocks.release(a, true);
  blocks.release(c, false);
  assert.deepEqual([blocks.used, blocks.kept, blocks.available], [0, 2, 3]);
  assert.deepEqual([blocks.take(), blocks.take(), blocks.take()], [c, b, a]);
  assert.deepEqual(evicted, [b, a]);
});

Deno.test("KvBlocks.share() brings a kept block back into use", () => {
  const blocks = new KvBlocks(1);
  const a = blocks.take()!;
  blocks.share(a);
  blocks.release(a, true);
  assert.equal(blocks.usersOf(a), 1);
  blocks.release(a, true);
  blocks.share(a);
  assert.equal(blocks.take(), null);
  blocks.release(a, false);
  assert.throws(() => blocks.share(a), RangeError);
  assert.throws(() => blocks.release(a, false), RangeError);
});
