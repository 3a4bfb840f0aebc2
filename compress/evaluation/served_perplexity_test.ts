import assert from "node:assert/strict";
import { openCheckpoint } from "../../models/open.ts";
import { packDense } from "../../models/pack_dense.ts";
import type { PackedModel } from "../../models/packed.ts";
import { servedPerplexity } from "./served_perplexity.ts";

const checkpoint = await openCheckpoint(new URL("../../models/default", import.meta.url).pathname);
const model = packDense(checkpoint, { values: "int8" });

Deno.test("servedPerplexity() reserves the cache of one sequence, not the default", async () => {
  const memoryOf = async (length: number) => {
    let bytes = 0;
    const load: PackedModel["load"] = (destination) =>
      model.load((entry) => {
        const view = destination(entry);
        bytes = view.buffer.byteLength;
        return view;
      });
    const sequence = Int32Array.from({ length }, (_, i) => 3 + i);
    assert.ok(
      Number.isFinite(await servedPerplexity({ ...model, load }, [sequence, sequence], { threads: 1 })),
    );
    return bytes;
  };
  assert.ok(await memoryOf(40) < await memoryOf(400));
});
