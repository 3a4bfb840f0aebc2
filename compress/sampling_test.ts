import assert from "node:assert/strict";
import fc from "fast-check";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { sampleBatch, sampleSequences } from "./sampling.ts";

const checkpoint = await openCheckpoint(new URL("../models/default", import.meta.url).pathname);
const model = packDense(checkpoint, { values: "int8" });

Deno.test("sampleSequences() draws different sequences whatever the seed's size", async () => {
  const draw = (seed: number) => sampleSequences(model, { sequences: 4, length: 16, seed }, { threads: 1 });
  for (const seed of [0, 1_790_000_000_000, Number.MAX_SAFE_INTEGER]) {
    const found = await draw(seed);
    assert.equal(new Set(found.map(String)).size, 4, `seed ${seed}`);
    assert.ok(found.every((ids) => ids.length === 16));
  }
});

Deno.test("sampleSequences() draws what it would draw one by one, whatever is decoded together", async () => {
  const request = { sequences: 11, length: 20, seed: 3 };
  const found = await sampleSequences(model, request, { threads: 2 });
  assert.equal(found.length, 11);
  const few = await sampleSequences(model, { ...request, sequences: 2 }, { threads: 1 });
  assert.deepEqual(found.slice(0, 2), few);
});

Deno.test("sampleBatch() decodes as many each time, in whole tiles, and no more than fit", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 0, max: 300 }), (sequences, room) => {
      const batch = sampleBatch(sequences, room), most = Math.max(1, Math.min(128, room));
      assert.ok(batch >= 1 && batch <= most);
      assert.equal(Math.ceil(sequences / batch), Math.ceil(sequences / most), "no more rounds than needed");
    }),
  );
  assert.equal(sampleBatch(72, 128), 72);
  assert.equal(sampleBatch(136, 1000), 72);
  assert.equal(sampleBatch(64, 9), 8);
});
