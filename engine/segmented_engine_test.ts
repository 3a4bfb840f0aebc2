/** An engine on several memories answers the same bits as on one. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import { buildPlan } from "../models/build_plan.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { syntheticAdapter } from "../models/synthetic_adapter.ts";
import { planCapacity } from "./capacity.ts";
import { loadEngine } from "./engine.ts";
import { type Engine, type EngineOptions, GREEDY } from "./types.ts";

const checkpoint = await openCheckpoint(new URL("../models/default/", import.meta.url).pathname);
const tied = packDense(checkpoint, { values: "int8" });
/** The same model with a head of its own: a copy of the embedding. */
const untied: PackedModel = {
  ...tied,
  spec: { ...tied.spec, tiedEmbeddings: false },
  tensors: [...tied.tensors, { ...tied.tensors[0], name: "head" }],
  load: (destination) =>
    tied.load((entry) => destination(entry)).then(() =>
      destination({ ...tied.tensors[0], name: "head" }).set(destination(tied.tensors[0]))
    ),
};

// Room for less than the sequences need together: some wait, some are preempted and computed again.
const OPTIONS = { maxSequences: 4, kvTokens: 304, contextLength: 304, kvFormat: "int8" } as const;
const PROMPTS = [5, 17, 270].map((length, p) =>
  Array.from({ length }, (_, i) => 3 + (i * 7919 + p * 131) % 2000)
);

/** A limit with which the model takes `count` memories. */
function limitFor(model: PackedModel, count: number, threads: number): number {
  const plan = buildPlan(model);
  const options = { ...OPTIONS, threads, maxRows: 256, availableBytes: null };
  const { memoryBytes } = planCapacity(model, plan, options);
  for (let share = 1; share > 0.1; share -= 0.01) {
    const memoryLimitBytes = Math.floor(memoryBytes * share);
    const { map } = planCapacity(model, plan, { ...options, memoryLimitBytes });
    if (map.segments.length === count) return memoryLimitBytes;
  }
  throw new Error(`no limit gives ${count} memories`);
}

const ADAPTER = syntheticAdapter(tied.spec, { kinds: ["q", "v", "o", "up", "down"], rank: 9, size: 0.4 });

async function greedy(engine: Engine, promptIds: readonly number[], adapter?: string): Promise<number[]> {
  const tokens: number[] = [];
  const request = { promptIds, maxTokens: 16, stopIds: [], sampling: GREEDY, logprobs: null, adapter };
  for await (const e of engine.generate(request)) if (e.type === "token") tokens.push(e.token);
  return tokens;
}

async function answers(model: PackedModel, options: EngineOptions) {
  const engine = await loadEngine(model, { ...OPTIONS, ...options });
  try {
    await engine.addAdapter("a", ADAPTER);
    return {
      logits: await engine.logits(PROMPTS[2], { from: 0 }),
      adapted: await engine.logits(PROMPTS[2], { from: 0, adapter: "a" }),
      tokens: await Promise.all([
        ...[...PROMPTS, PROMPTS[1]].map((p) => greedy(engine, p)),
        ...PROMPTS.map((p) => greedy(engine, p, "a")),
      ]),
      one: await greedy(engine, PROMPTS[0]),
      kvBlocksUsed: engine.stats().kvBlocksUsed,
      memoryBytes: engine.stats().memoryBytes,
    };
  } finally {
    await engine.close();
  }
}

Deno.test({
  name: "1, 2, 3 and 4 memories on 1 and 2 threads give the same logits and tokens, to the last bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const expected = await answers(tied, { threads: 1 });
    assert.deepEqual(expected.tokens[0], expected.one);
    assert.notDeepEqual(expected.logits, expected.adapted);
    const cases = [[tied, 2, 2], [tied, 1, 3], [untied, 2, 4]] as const;
    for (const [model, threads, count] of cases) {
      const memoryLimitBytes = limitFor(model, count, threads);
      const { memoryBytes, ...rest } = await answers(model, { threads, memoryLimitBytes });
      assert.ok(memoryBytes > expected.memoryBytes);
      assert.deepEqual(rest, {
        ...rest,
        logits: expected.logits,
        adapted: expected.adapted,
        tokens: expected.tokens,
        one: expected.one,
      });
      assert.equal(rest.kvBlocksUsed, 0);
    }
  },
});

Deno.test({
  name: "an encoder on several memories gives the same states as on one, to the last bit",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const attention = { ...tied.spec.attention, causal: false, rope: null };
    const spec = { ...tied.spec, attention, vocabSize: 64 };
    const encoder = packDense(randomCheckpoint(spec), { values: "int8" });
    const ids = Array.from({ length: 50 }, (_, i) => (i * 7) % 64);
    const encode = async (options: EngineOptions) => {
      const engine = await loadEngine(encoder, { ...OPTIONS, threads: 2, ...options });
      try {
        return { states: await engine.encode(ids), bytes: engine.stats().memoryBytes };
      } finally {
        await engine.close();
      }
    };
    const one = await encode({});
    const several = await encode({ memoryLimitBytes: Math.floor(one.bytes * 0.75) });
    assert.ok(several.bytes > one.bytes);
    assert.deepEqual(several.states, one.states);
  },
});
