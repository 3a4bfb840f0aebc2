import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { loadEngine } from "./engine.ts";
import {
  type Engine,
  type GenerateEvent,
  type GenerateRequest,
  GREEDY,
  type SamplingOptions,
} from "./types.ts";

const DEFAULT_MODEL = new URL("../models/default/", import.meta.url).pathname;
const LOGITS_TOLERANCE = 1e-3; // f32 kernels against transformers in f32

const checkpoint = await openCheckpoint(DEFAULT_MODEL);
const load = (o: Parameters<typeof loadEngine>[1] = {}): Promise<Engine> =>
  loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 2, ...o });

const request = (o: Partial<GenerateRequest> = {}): GenerateRequest => ({
  promptIds: [1, 431, 454, 261, 417],
  maxTokens: 24,
  stopIds: [],
  sampling: GREEDY,
  logprobs: null,
  ...o,
});
const sampling = (o: Partial<SamplingOptions>): SamplingOptions => ({ ...GREEDY, temperature: 1, ...o });

async function run(engine: Engine, r: GenerateRequest, signal?: AbortSignal): Promise<GenerateEvent[]> {
  const events: GenerateEvent[] = [];
  for await (const e of engine.generate(r, signal)) events.push(e);
  return events;
}
const tokens = (events: readonly GenerateEvent[]) =>
  events.flatMap((e) => e.type === "token" ? [e.token] : []);

/** Polls until `condition` holds: stats arrive with the next message of the leader. */
async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 5000;
  while (!condition()) {
    assert.ok(performance.now() < end, "the condition holds in time");
    await new Promise((r) => setTimeout(r, 5));
  }
}

function test(
  name: string,
  options: Parameters<typeof loadEngine>[1],
  fn: (engine: Engine) => Promise<void>,
): void {
  Deno.test({
    name,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const engine = await load(options);
      try {
        await fn(engine);
      } finally {
        await engine.close();
      }
    },
  });
}

test("the bundled model equals its expected.json", {}, async (engine) => {
  const expected = JSON.parse(await Deno.readTextFile(`${DEFAULT_MODEL}expected.json`));
  for (const c of expected.cases) {
    const logits = await engine.logits(c.ids);
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
    assert.deepEqual(order.slice(0, 10), c.top10_ids);
    c.top10_ids.forEach((id: number, i: number) =>
      assert.ok(Math.abs(logits[id] - c.top10_logits[i]) < LOGITS_TOLERANCE)
    );
    assert.deepEqual(tokens(await run(engine, request({ promptIds: c.ids, maxTokens: 48 }))), c.greedy_ids);
  }
});

/** Of logits up to about 20, whose deviation over the vocabulary is about 4: f16 keeps 11 bits, int8 about 7. */
const KV_TOLERANCE = { f16: 0.02, int8: 0.6 } as const;

for (const kvFormat of ["f16", "int8"] as const) {
  test(
    `KV cache in ${kvFormat}: logits stay near those of f32, on any number of threads`,
    { kvFormat },
    async (engine) => {
      const exact = await load(), single = await load({ kvFormat, threads: 1 });
      try {
        for (const length of [1, 40, 300]) {
          const ids = Array.from({ length }, (_, i) => 3 + (i * 7919) % 2000);
          const logits = await engine.logits(ids), expected = await exact.logits(ids);
          const worst = logits.reduce((most, l, i) => Math.max(most, Math.abs(l - expected[i])), 0);
          assert.ok(worst > 0 && worst < KV_TOLERANCE[kvFormat], `${length} tokens: ${worst}`);
          assert.deepEqual(await single.logits(ids), logits);
        }
      } finally {
        await Promise.all([exact.close(), single.close()]);
      }
    },
  );
}

Deno.test({
  name: "a context that threads share in parts gives the same bits on 1, 2 and 3 of them",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const model = packDense(checkpoint, { values: "int8" });
    const long = { ...model, spec: { ...model.spec, contextLength: 1536 } };
    // The last chunk of the prompt is one row, and all later steps are: those are split.
    const ids = Array.from({ length: 1025 }, (_, i) => 3 + (i * 7919) % 2000);
    const seen: unknown[] = [];
    for (const threads of [1, 2, 3]) {
      const engine = await loadEngine(long, { threads, maxSequences: 2 });
      try {
        const r = request({ promptIds: ids, maxTokens: 8 });
        const together = await Promise.all([run(engine, r), run(engine, { ...r, promptIds: ids.slice(5) })]);
        seen.push([await engine.logits(ids), ...together.map(tokens)]);
      } finally {
        await engine.close();
      }
    }
    assert.deepEqual(seen[1], seen[0]);
    assert.deepEqual(seen[2], seen[0]);
  },
});

test("generate() yields prompt, tokens, end, in this order and with the right counts", {}, async (engine) => {
  const events = await run(engine, request());
  assert.equal(events[0].type, "prompt");
  assert.equal(events.at(-1)!.type, "end");
  assert.equal(tokens(events).length, 24);
  const end = events.at(-1) as GenerateEvent & { type: "end" };
  assert.equal(end.reason, "length");
  assert.equal(end.timings.completionTokens, 24);
  assert.equal(end.timings.promptTokens, 5);
});

test("generate() ends at a stop id without emitting it", {}, async (engine) => {
  const all = tokens(await run(engine, request()));
  const stop = all[10];
  const events = await run(engine, request({ stopIds: [stop] }));
  assert.deepEqual(tokens(events), all.slice(0, all.indexOf(stop)));
  assert.equal((events.at(-1) as { reason: string }).reason, "stop");
});

test("seeded sampling gives the same tokens alone and beside others", {}, async (engine) => {
  const r = request({ sampling: sampling({ seed: 5, topP: 0.95 }), maxTokens: 40 });
  const alone = tokens(await run(engine, r));
  const others = [1, 2, 3, 4, 6, 7].map((seed) =>
    run(engine, request({ sampling: sampling({ seed }), maxTokens: 60 }))
  );
  assert.deepEqual(tokens(await run(engine, r)), alone);
  const different = await Promise.all(others);
  assert.ok(different.some((e) => tokens(e).slice(0, 40).join() !== alone.join()));
});

test("preemption does not change a token", { kvTokens: 160, contextLength: 128 }, async (engine) => {
  const r = request({ maxTokens: 100 });
  const alone = tokens(await run(engine, r));
  const together = await Promise.all([1, 2, 3].map(() => run(engine, r)));
  for (const events of together) assert.deepEqual(tokens(events), alone);
});

test("score() is the log-softmax of logits(), and echo reports the same", {}, async (engine) => {
  const ids = [1, 431, 454, 261, 417, 14, 407, 284];
  const nll = await engine.score(ids);
  const all = await engine.logits(ids, { from: 0 });
  const vocab = engine.vocabSize;
  for (let i = 0; i + 1 < ids.length; i++) {
    const row = all.subarray(i * vocab, (i + 1) * vocab);
    const max = row.reduce((a, b) => Math.max(a, b));
    const lse = max + Math.log(row.reduce((s, l) => s + Math.exp(l - max), 0));
    assert.ok(Math.abs(nll[i] - (lse - row[ids[i + 1]])) < 1e-4);
  }
  const [prompt] = await run(
    engine,
    request({ promptIds: ids, maxTokens: 0, logprobs: 2, promptLogprobs: true }),
  );
  assert.equal(prompt.type, "prompt");
  const reported = (prompt as GenerateEvent & { type: "prompt" }).logprobs!;
  assert.equal(reported[0], null);
  for (let i = 1; i < ids.length; i++) {
    assert.ok(Math.abs(reported[i]!.logprob + nll[i - 1]) < 1e-4);
    assert.equal(reported[i]!.top.length, 2);
  }
});

test(
  "score() and logits() begin where they are told, and the prefix cache serves what stands before",
  {},
  async (engine) => {
    const ids = Array.from({ length: 90 }, (_, i) => 3 + (i * 7919) % 2000);
    const nll = await engine.score(ids), all = await engine.logits(ids, { from: 0 });
    assert.equal(nll.length, 89);
    for (const from of [0, 1, 40, 88]) {
      const part = await engine.score(ids, { from });
      assert.equal(part.length, 89 - from);
      part.forEach((x, i) => assert.ok(Math.abs(x - nll[from + i]) < LOGITS_TOLERANCE));
      const rows = await engine.logits(ids, { from });
      assert.equal(rows.length, (90 - from) * engine.vocabSize);
      rows.forEach((x, i) => assert.ok(Math.abs(x - all[from * engine.vocabSize + i]) < LOGITS_TOLERANCE));
    }
    assert.ok(engine.stats().prefixTokens >= 32 + 80, "whole blocks before `from` were known");
    await assert.rejects(engine.score(ids, { from: 89 }), RangeError);
    await assert.rejects(engine.logits(ids, { from: 90 }), RangeError);
  },
);

test(
  "score() takes one token more than the context window: nobody asks what follows it",
  {},
  async (engine) => {
    const ids = Array.from({ length: 513 }, (_, i) => 3 + (i * 7919) % 2000);
    assert.equal((await engine.score(ids)).length, 512);
    assert.equal((await engine.score([1])).length, 0);
    await assert.rejects(engine.score([...ids, 1]), { code: "context_length_exceeded" });
    await assert.rejects(engine.logits(ids), { code: "context_length_exceeded" });
  },
);

test("a prompt of several chunks gives the same logits every time, on both threads", {}, async (engine) => {
  const ids = Array.from({ length: 500 }, (_, i) => 3 + (i * 7919) % 2000);
  const first = await engine.logits(ids);
  for (let i = 0; i < 5; i++) assert.deepEqual(await engine.logits(ids), first);
  const all = await engine.logits(ids, { from: 0 });
  const last = all.subarray(all.length - engine.vocabSize);
  last.forEach((l, i) => assert.ok(Math.abs(l - first[i]) < LOGITS_TOLERANCE));
});

test("aborting frees every KV block", {}, async (engine) => {
  const abort = new AbortController();
  const running = run(engine, request({ maxTokens: 400 }), abort.signal);
  await until(() => engine.stats().running === 1);
  abort.abort();
  await assert.rejects(running, (e) => e instanceof OatmillError && e.code === "cancelled");
  await until(() => engine.stats().running === 0 && engine.stats().kvBlocksUsed === 0);
});

test("whoever leaves is gone within a step, running or waiting, and the others go on", {
  maxSequences: 2,
  maxWaiting: 8,
}, async (engine) => {
  const aborts = Array.from({ length: 6 }, () => new AbortController());
  const runs = aborts.map(({ signal }) => run(engine, request({ maxTokens: 400 }), signal));
  const settled = Promise.allSettled(runs);
  await until(() => engine.stats().running === 2 && engine.stats().waiting === 4);
  const before = engine.stats().stepsTotal;
  for (const i of [0, 3, 4, 5]) aborts[i].abort();
  await until(() => engine.stats().running + engine.stats().waiting === 2);
  // The step that was under way, and one that began before the leader heard of it.
  const taken = engine.stats().stepsTotal - before;
  assert.ok(taken < 50, `${taken} steps`);
  aborts[1].abort();
  aborts[2].abort();
  await until(() => engine.stats().running === 0);
  assert.equal(engine.stats().kvBlocksUsed, 0);
  assert.ok((await settled).every(({ status }) => status === "rejected"));
});

test("who waits too long for a first step is refused, and who runs goes on", {
  maxSequences: 1,
  maxWaitMs: 1,
}, async (engine) => {
  const first = run(engine, request({ maxTokens: 400 }));
  await until(() => engine.stats().running === 1);
  await assert.rejects(
    run(engine, request()),
    (e) => e instanceof OatmillError && e.code === "queue_timeout",
  );
  assert.equal(tokens(await first).length, 400);
  assert.equal(engine.stats().waiting, 0);
});

test("a generation that nobody reads ends when it is too far ahead", { maxSequences: 1 }, async (engine) => {
  const events = engine.generate(request({ maxTokens: 480, logprobs: 200 }))[Symbol.asyncIterator]();
  await events.next();
  await until(() => engine.stats().running === 0);
  assert.equal(engine.stats().kvBlocksUsed, 0);
  let read = 1;
  await assert.rejects(async () => {
    for (; !(await events.next()).done;) read++;
  }, (e) => e instanceof OatmillError && e.code === "request_timeout");
  assert.ok(read > 300 && read < 400, `${read} events of what was there`);
});

test("leaving the loop frees every KV block", {}, async (engine) => {
  for await (const e of engine.generate(request({ maxTokens: 400 }))) if (e.type === "token") break;
  await until(() => engine.stats().kvBlocksUsed === 0 && engine.stats().running === 0);
});

test("what cannot run is refused with its reason", { maxWaiting: 1, maxSequences: 1 }, async (engine) => {
  const code = (code: string) => (e: unknown) => e instanceof OatmillError && e.code === code;
  await assert.rejects(
    run(engine, request({ promptIds: new Array(512).fill(5) })),
    code("context_length_exceeded"),
  );
  await assert.rejects(run(engine, request({ promptIds: [4000] })), code("invalid_request"));
  await assert.rejects(run(engine, request({ promptIds: [] })), code("invalid_request"));
  const many = await Promise.allSettled(
    Array.from({ length: 8 }, () => run(engine, request({ maxTokens: 50 }))),
  );
  assert.ok(many.some((r) => r.status === "fulfilled"));
  const refused = many.flatMap((r) => r.status === "rejected" ? [r.reason] : []);
  assert.ok(refused.length > 0 && refused.every(code("rate_limit_exceeded")));
});

test("generation ends at the context window", { contextLength: 32 }, async (engine) => {
  const events = await run(engine, request({ maxTokens: 100 }));
  assert.equal(tokens(events).length, 32 - 5);
  assert.equal((events.at(-1) as { reason: string }).reason, "length");
});

test("close() ends running requests with an error", {}, async (engine) => {
  const running = assert.rejects(
    run(engine, request({ maxTokens: 400 })),
    (e) => e instanceof OatmillError && e.code === "unavailable",
  );
  await until(() => engine.stats().running === 1);
  await engine.close();
  await running;
  await assert.rejects(engine.score([1, 2]), (e) => e instanceof OatmillError && e.code === "unavailable");
});

Deno.test({
  name: "close() ends although a thread dies while it waits",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const started: Worker[] = [], real = globalThis.Worker;
    globalThis.Worker = class extends real {
      constructor(...args: ConstructorParameters<typeof Worker>) {
        super(...args);
        started.push(this);
      }
    };
    const engine = await load().finally(() => globalThis.Worker = real);
    for (const w of started) w.terminate(); // so that nobody answers
    const closed = engine.close();
    await Promise.resolve();
    started[1].onerror!(new ErrorEvent("error", { message: "unreachable" }));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise((_, reject) =>
      timer = setTimeout(() => reject(new Error("close() hangs")), 5000)
    );
    await Promise.race([closed, late]);
    clearTimeout(timer);
  },
});
