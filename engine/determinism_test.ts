/**
 * The engine's promise with quantised weights: what a request gets does not depend, to the last bit, on what else runs,
 * on the size of the KV pool, on cached prefixes or on speculation; with and without LoRA adapters.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { syntheticAdapter } from "../models/synthetic_adapter.ts";
import { loadEngine } from "./engine.ts";
import { type Engine, type GenerateEvent, type GenerateRequest, GREEDY } from "./types.ts";

const checkpoint = await openCheckpoint(new URL("../models/default/", import.meta.url).pathname);
const CONTEXT = 128;
/** Requests of all runs come from so few, so that the reference computes each once. */
const REQUESTS = 40;
const RUNS = 12;

const ADAPTERS = {
  large: syntheticAdapter(checkpoint.spec, { kinds: ["q", "v", "o", "down"], rank: 20, size: 0.4 }),
  small: syntheticAdapter(checkpoint.spec, { kinds: ["q", "k", "v", "gate", "up"], rank: 3, size: 0.4 }),
};

async function load(options: Parameters<typeof loadEngine>[1]): Promise<Engine> {
  const model = packDense(checkpoint, { values: "int8" });
  const engine = await loadEngine(model, { threads: 2, contextLength: CONTEXT, ...options });
  for (const [name, adapter] of Object.entries(ADAPTERS)) await engine.addAdapter(name, adapter);
  return engine;
}

/** Texts that begin alike more or less far; some repeat themselves, as what speculation hits does. */
function promptOf(i: number): number[] {
  const shared = [0, 16, 33, 48, 70][i % 5], own = 1 + i % 23, period = i % 3 === 0 ? 7 : 1000;
  const family = i % 2;
  return Array.from(
    { length: shared + own },
    (_, p) => 3 + ((p % period) * 131 + (p < shared ? family : i) * 17) % 1500,
  );
}

function requestOf(i: number): GenerateRequest {
  return {
    promptIds: promptOf(i),
    maxTokens: i % 11 === 10 ? 0 : 3 + (i * 7) % 50,
    stopIds: i % 4 === 0 ? [14, 16, 18] : [],
    sampling: i % 2 === 0 ? GREEDY : {
      ...GREEDY,
      temperature: [0.2, 0.7, 1][i % 3],
      topP: i % 5 === 0 ? 0.9 : 1,
      topK: i % 7 === 0 ? 40 : 0,
      repeatPenalty: i % 9 === 0 ? 1.2 : 1,
      frequencyPenalty: i % 6 === 1 ? 0.5 : 0,
      seed: i,
    },
    logprobs: [null, 0, 3][i % 3],
    promptLogprobs: i % 10 === 9,
    adapter: [undefined, "large", undefined, "small", "large"][i % 5],
  };
}

/** All that a request's caller sees but times and what was cached. */
async function run(engine: Engine, i: number, cancelAfter: number | null): Promise<unknown[]> {
  const seen: unknown[] = [];
  const visible = (e: GenerateEvent) =>
    e.type === "prompt" ? { ...e, cachedTokens: 0 } : e.type === "end" ? e.reason : e;
  for await (const e of engine.generate(requestOf(i))) {
    seen.push(visible(e));
    if (seen.length - 1 === cancelAfter) break;
  }
  return seen;
}

Deno.test({
  name: "requests get the same bits alone and in any company, pool and order",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const alone = await load({ threads: 1, maxSequences: 1, prefixCache: false, speculation: false });
    const engines = await Promise.all([
      load({ maxSequences: 6, kvTokens: 160 }),
      load({ maxSequences: 8, kvTokens: 1024 }),
    ]);
    try {
      const expected: unknown[][] = [];
      for (let i = 0; i < REQUESTS; i++) expected.push(await run(alone, i, null));
      const request = fc.record({
        i: fc.integer({ min: 0, max: REQUESTS - 1 }),
        cancelAfter: fc.option(fc.integer({ min: 0, max: 20 }), { freq: 4 }),
      });
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...engines),
          fc.array(request, { minLength: 1, maxLength: 9 }),
          async (engine, requests) => {
            const seen = await Promise.all(requests.map((r) => run(engine, r.i, r.cancelAfter)));
            requests.forEach(({ i, cancelAfter }, n) => {
              const length = cancelAfter === null ? undefined : cancelAfter + 1;
              assert.deepEqual(seen[n], expected[i].slice(0, length), `request ${i}`);
            });
          },
        ),
        { numRuns: RUNS },
      );
      // One after the other everything drafts: what a mix drafts depends on who meets whom.
      for (let i = 0; i < REQUESTS; i++) assert.deepEqual(await run(engines[1], i, null), expected[i]);
      const { prefixHits, acceptedTokens, draftedTokens } = engines[1].stats();
      assert.ok(prefixHits > 0, "prefixes were found");
      assert.ok(acceptedTokens > 0 && acceptedTokens < draftedTokens, "some drafts were right, some not");
      for (const e of engines) await e.logits([5]); // after it every cancellation has arrived
      assert.deepEqual(engines.map((e) => e.stats().kvBlocksUsed), [0, 0]);
    } finally {
      await Promise.all([alone, ...engines].map((e) => e.close()));
    }
  },
});
