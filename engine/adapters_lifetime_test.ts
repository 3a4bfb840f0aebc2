/** Adapters that come and go beside what runs, and those that are refused. */
import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { type LoraAdapter, type LoraLayer, MAX_LORA_RANK } from "../models/adapter.ts";
import { packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { syntheticAdapter } from "../models/synthetic_adapter.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { SMALL_DECODER } from "../models/testing/small_spec.ts";
import { MAX_ADAPTERS } from "./adapter_places.ts";
import { loadEngine } from "./engine.ts";
import { type Engine, type EngineOptions, GREEDY } from "./types.ts";

const SPEC: ModelSpec = { ...SMALL_DECODER, contextLength: 512, tiedEmbeddings: false };
const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 7) % 60);
const adapterOf = (seed: number, rank = 4) =>
  syntheticAdapter(SPEC, { kinds: ["q", "v", "down"], rank, seed });

/** On an engine of a small model, which is closed at the end. */
function test(name: string, run: (engine: Engine) => Promise<void>, options: EngineOptions = {}): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const model = packDense(randomCheckpoint(SPEC), { values: "int8" });
      const engine = await loadEngine(model, { threads: 2, ...options });
      try {
        await run(engine);
      } finally {
        await engine.close();
      }
    },
  });
}

async function* tokens(engine: Engine, adapter?: string, maxTokens = 100): AsyncGenerator<number> {
  const request = { promptIds: PROMPT, maxTokens, stopIds: [], sampling: GREEDY, logprobs: null, adapter };
  for await (const event of engine.generate(request)) if (event.type === "token") yield event.token;
}
const refused = (code: string, message: RegExp) => (error: unknown) =>
  error instanceof OatmillError && error.code === code && message.test(error.message);

test("a prompt is found in the cache of its own adapter alone", async (engine) => {
  await engine.addAdapter("a", adapterOf(1));
  await engine.addAdapter("b", adapterOf(2));
  const cached = async (adapter?: string) => {
    const request = { promptIds: PROMPT, maxTokens: 1, stopIds: [], sampling: GREEDY, logprobs: null };
    for await (const event of engine.generate({ ...request, adapter })) {
      if (event.type === "prompt") return event.cachedTokens;
    }
  };
  const names = [undefined, "a", "b"];
  for (const name of names) assert.equal(await cached(name), 0);
  for (const name of names) assert.equal(await cached(name), 32);
  await engine.removeAdapter("a");
  await engine.addAdapter("a", adapterOf(3));
  assert.equal(await cached("a"), 0, "another adapter of the same name");
});

test("an adapter that is removed serves those that use it to their ends, and nobody else", async (engine) => {
  await engine.addAdapter("a", adapterOf(1));
  const expected = await Array.fromAsync(tokens(engine, "a"));
  const { memoryBytes } = engine.stats();
  const running = tokens(engine, "a"), seen = [(await running.next()).value as number];
  let gone = false;
  const removed = engine.removeAdapter("a").then(() => gone = true);
  assert.deepEqual(engine.adapters(), []);
  await assert.rejects(engine.logits(PROMPT, { adapter: "a" }), refused("model_not_found", /adapter "a"/));
  await assert.rejects(engine.removeAdapter("a"), refused("model_not_found", /adapter "a"/));
  await engine.addAdapter("a", adapterOf(2)); // while the other one is still used
  assert.equal(gone, false);
  for await (const token of running) seen.push(token);
  assert.deepEqual(seen, expected);
  await removed;
  await engine.removeAdapter("a");
  await engine.addAdapter("a", adapterOf(1));
  assert.deepEqual(await Array.fromAsync(tokens(engine, "a")), expected);
  assert.ok(engine.stats().memoryBytes - memoryBytes <= 2 ** 16, "memory is used again");
});

test("removing an adapter waits for a generation that is left", async (engine) => {
  await engine.addAdapter("a", adapterOf(1));
  const running = tokens(engine, "a", 400);
  await running.next();
  const removed = engine.removeAdapter("a");
  await running.return(null);
  await removed;
  assert.deepEqual(engine.adapters(), []);
});

test("adapters come beside what runs, which does not notice", async (engine) => {
  const expected = await Array.fromAsync(tokens(engine));
  const running = tokens(engine), seen = [(await running.next()).value as number];
  await Promise.all([1, 2, 3].map((seed) => engine.addAdapter(`a${seed}`, adapterOf(seed, 30))));
  const mixed = [1, 2, 3].map((seed) => Array.fromAsync(tokens(engine, `a${seed}`)));
  for await (const token of running) seen.push(token);
  assert.deepEqual(seen, expected);
  const together = await Promise.all(mixed);
  for (const [i, some] of together.entries()) {
    assert.deepEqual(some, await Array.fromAsync(tokens(engine, `a${i + 1}`)));
  }
  assert.equal(new Set(together.map(String)).size, 3);
  assert.deepEqual(engine.adapters(), ["a1", "a2", "a3"]);
});

test("what is no adapter of the model is refused, and leaves nothing", async (engine) => {
  const layer = (change: Partial<LoraLayer>, name = "block.1.q"): LoraAdapter => ({
    layers: new Map([[name, { rank: 2, A: new Float32Array(80), B: new Float32Array(96), ...change }]]),
  });
  const cases: [LoraAdapter, string, RegExp][] = [
    [layer({}, "block.2.q"), "invalid_request", /no layer "block.2.q"/],
    [layer({}, "block.0.experts.1.up"), "invalid_request", /"block.0.experts.1.up" is an expert's/],
    [layer({ rank: 0 }), "invalid_request", /rank 0, must be 1 to 512/],
    [layer({ rank: MAX_LORA_RANK + 1 }), "invalid_request", /rank 513/],
    [
      layer({ A: new Float32Array(82) }),
      "invalid_request",
      /82 values in A and 96 in B, must be \[2,40\] and \[48,2\]/,
    ],
    [layer({ B: new Float32Array(96).fill(NaN, 95) }), "non_finite_weights", /"block.1.q" holds NaN/],
  ];
  for (const [adapter, code, message] of cases) {
    await assert.rejects(engine.addAdapter("a", adapter), refused(code, message));
  }
  assert.deepEqual(engine.adapters(), []);
  await engine.addAdapter("a", layer({}));
  await assert.rejects(engine.addAdapter("a", layer({})), refused("conflict", /already has an adapter "a"/));
  assert.deepEqual(await engine.logits(PROMPT, { adapter: "a" }), await engine.logits(PROMPT));
});

test("a generation with an adapter that is not there fails", async (engine) => {
  await assert.rejects(Array.fromAsync(tokens(engine, "a")), refused("model_not_found", /adapter "a"/));
  await assert.rejects(engine.score(PROMPT, { adapter: "a" }), refused("model_not_found", /adapter "a"/));
});

test("adapters beyond the bytes that they may have are refused until another one goes", async (engine) => {
  await engine.addAdapter("a", adapterOf(1));
  const message = /needs 0.0 MiB, and adapters have 0.0 MiB of 0.0 MiB. Remove another/;
  await assert.rejects(engine.addAdapter("b", adapterOf(2)), refused("insufficient_memory", message));
  await engine.removeAdapter("a");
  await engine.addAdapter("b", adapterOf(2));
}, { adapterBytes: 6000 });

test("more adapters than there are places are refused until another one goes", async (engine) => {
  const empty: LoraAdapter = { layers: new Map() };
  for (let i = 0; i < MAX_ADAPTERS; i++) await engine.addAdapter(`a${i}`, empty);
  await assert.rejects(engine.addAdapter("more", empty), refused("conflict", /has 64, the most/));
  await engine.removeAdapter("a7");
  await engine.addAdapter("more", empty);
});

const MEMORY = 4_000_000;
test("adapters beyond what a memory holds are refused", async (engine) => {
  assert.ok(engine.stats().memoryBytes < MEMORY);
  const large = syntheticAdapter(SPEC, {
    kinds: ["q", "k", "v", "o", "gate", "up", "down"],
    rank: MAX_LORA_RANK,
  });
  await assert.rejects(async () => {
    for (let i = 0; i < 10; i++) await engine.addAdapter(`a${i}`, large);
  }, refused("insufficient_memory", /a memory holds 3.8 MiB/));
  assert.ok(engine.adapters().length > 0 && engine.stats().memoryBytes <= MEMORY + 2 ** 16);
}, { memoryLimitBytes: MEMORY });

Deno.test({
  name: "an encoder takes no adapters",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const spec = { ...SPEC, attention: { ...SPEC.attention, causal: false, rope: null } };
    const engine = await loadEngine(packDense(randomCheckpoint(spec), { values: "int8" }), { threads: 1 });
    await assert.rejects(engine.addAdapter("a", adapterOf(1)), refused("invalid_request", /no decoder/));
    await engine.close();
  },
});
