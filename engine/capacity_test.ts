import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { buildPlan } from "../models/build_plan.ts";
import { availableMemory, type CapacityOptions, defaultKvFormat, planCapacity } from "./capacity.ts";

const checkpoint = await openCheckpoint(new URL("../models/default/", import.meta.url).pathname);
const model = packDense(checkpoint, { values: "int8" });
const exact = packDense(checkpoint, { values: "f32" });
checkpoint.close();
const plan = buildPlan(model);
const capacity = (o: Partial<CapacityOptions> = {}) =>
  planCapacity(model, plan, {
    threads: 2,
    maxRows: 64,
    maxSequences: 16,
    kvFormat: "f32",
    availableBytes: null,
    ...o,
  });
const code = (code: string) => (e: unknown) => e instanceof OatmillError && e.code === code;

Deno.test("defaultKvFormat() is exact beside exact weights", () => {
  assert.equal(defaultKvFormat(exact), "f32");
  assert.equal(defaultKvFormat(model), "int8");
});

Deno.test("planCapacity() holds as many contexts as sequences by default", () => {
  const { contextLength, kvBlocks } = capacity();
  assert.equal(contextLength, model.spec.contextLength);
  assert.ok(kvBlocks * 16 >= 16 * contextLength);
});

Deno.test("planCapacity() shrinks a pool that was not asked for before it refuses", () => {
  const full = capacity();
  const least = capacity({ kvTokens: 512 });
  const tight = capacity({ availableBytes: (full.memoryBytes + least.memoryBytes) / 2 });
  assert.ok(tight.kvBlocks < full.kvBlocks && tight.kvBlocks >= least.kvBlocks);
  assert.throws(() => capacity({ availableBytes: least.memoryBytes - 1 }), code("insufficient_memory"));
  assert.throws(
    () => capacity({ kvTokens: 16 * 512, availableBytes: full.memoryBytes - 1 }),
    code("insufficient_memory"),
  );
});

Deno.test("planCapacity() says too_large when a memory cannot hold one part of the model", () => {
  for (const kvTokens of [undefined, 8192]) {
    assert.throws(() => capacity({ kvTokens, memoryLimitBytes: 1 << 20 }), code("too_large"));
  }
});

Deno.test("planCapacity() lets a window that is longer than the default pool hold one long context", () => {
  // The size of Llama-2-7B: 1 GiB of KV would be a fraction of its window.
  const spec = {
    ...model.spec,
    contextLength: 32768,
    attention: { ...model.spec.attention, kvHeads: 64, heads: 64, headDim: 128 },
  };
  const wide = { ...model, spec };
  const { contextLength } = planCapacity(wide, plan, {
    threads: 1,
    maxRows: 8,
    maxSequences: 1,
    kvFormat: "f32",
    availableBytes: null,
  });
  assert.ok(contextLength >= 4096 && contextLength <= 32768);
});

Deno.test("availableMemory() is a plausible number where it may be asked", () => {
  const bytes = availableMemory();
  assert.ok(bytes === null || bytes > 2 ** 24);
});
