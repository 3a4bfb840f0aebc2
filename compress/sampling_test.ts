import assert from "node:assert/strict";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { sampleSequences } from "./sampling.ts";

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
