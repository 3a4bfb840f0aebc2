import assert from "node:assert/strict";
import { FakeTime } from "@std/testing/time";
import type { FakeEngine } from "../tests/fake_engine.ts";
import { FakeServer, type FakeServerOptions } from "../tests/fake_server.ts";

/** Lets everything happen that waits for no timer. */
async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await Promise.resolve();
}

function idleTest(
  name: string,
  options: FakeServerOptions,
  run: (server: FakeServer, time: FakeTime) => Promise<void>,
): void {
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    using time = new FakeTime();
    await run(server, time);
  });
}

idleTest("an engine that nobody uses is closed after its time, and comes back on demand", {
  idleMs: 1000,
}, async ({ services: { registry, telemetry }, engines, logs }, time) => {
  (await registry.acquire("fake"))[Symbol.dispose]();
  time.tick(999);
  await settle();
  assert.equal(engines[0].closed, false);
  time.tick(1);
  await settle();
  assert.equal(engines[0].closed, true);
  assert.deepEqual(registry.stats(), []);
  using lease = await registry.acquire("fake");
  assert.equal(lease.model.engine, engines[1]);
  assert.equal(engines[1].closed, false);
  const unloaded = logs.map((l) => JSON.parse(l)).find((l) => l.message === "model unloaded");
  assert.deepEqual([unloaded.model, unloaded.reason], ["fake", "idle"]);
  assert.match(await telemetry.metricsText(), /oatmill_model_unloads_total\{.*reason="idle".*\} 1/);
});

idleTest("what is taken into use while others make room stays open", {
  maxLoaded: 1,
}, async (server) => {
  const { registry } = server.services;
  await server.addModel("second");
  await server.addModel("third");
  const both = [await registry.acquire("fake"), await registry.acquire("second")];
  for (const lease of both) lease[Symbol.dispose]();
  const third = registry.acquire("third"); // closes both
  using second = await registry.acquire("second");
  using _ = await third;
  await settle();
  assert.equal(second.closed, null);
  assert.equal((second.model.engine as FakeEngine).closed, false);
});

idleTest("an engine in use is not idle, and each use starts its time anew", {
  idleMs: 1000,
}, async ({ services: { registry }, engines }, time) => {
  const first = await registry.acquire("fake"), second = await registry.acquire("fake");
  first[Symbol.dispose]();
  first[Symbol.dispose](); // counts once
  time.tick(5000);
  await settle();
  assert.equal(engines[0].closed, false);
  second[Symbol.dispose]();
  time.tick(600);
  (await registry.acquire("fake"))[Symbol.dispose]();
  time.tick(600);
  await settle();
  assert.equal(engines[0].closed, false);
  time.tick(400);
  await settle();
  assert.equal(engines[0].closed, true);
  assert.equal(engines.length, 1);
});

idleTest(
  "an idle time of 0 closes nothing",
  { idleMs: 0 },
  async ({ services: { registry }, engines }, time) => {
    (await registry.acquire("fake"))[Symbol.dispose]();
    time.tick(1e9);
    await settle();
    assert.equal(engines[0].closed, false);
  },
);

idleTest("lastUsed() is the newest model, then the one that was used last, also after a restart", {
  idleMs: 1000,
}, async (server, time) => {
  const { registry } = server.services;
  assert.equal(registry.lastUsed(), "fake");
  time.tick(10);
  await server.addModel("newer");
  assert.equal(registry.lastUsed(), "newer");
  (await registry.acquire("fake"))[Symbol.dispose]();
  assert.equal(registry.lastUsed(), "fake");
  time.tick(10);
  (await registry.acquire("newer"))[Symbol.dispose]();
  time.tick(10);
  (await registry.acquire("fake"))[Symbol.dispose]();
  time.tick(1000);
  await settle();
  assert.equal(registry.lastUsed(), "fake", "its last use counts, not its load");
});

idleTest("a model loads when engines that are being closed have given their memory back", {
  idleMs: 1000,
}, async ({ services: { registry }, engines }, time) => {
  (await registry.acquire("fake"))[Symbol.dispose]();
  const closed = Promise.withResolvers<void>();
  engines[0].close = () => closed.promise;
  time.tick(1000);
  const again = registry.acquire("fake");
  await settle();
  assert.equal(engines.length, 1);
  closed.resolve();
  using lease = await again;
  assert.equal(lease.model.engine, engines[1]);
});

Deno.test("a model that is being made answers 503 until it is there, and 404 when it did not come", async () => {
  await using server = await FakeServer.start({});
  const { registry } = server.services;
  const ask = () => server.post("/v1/completions", { model: "soon", prompt: "a", max_tokens: 1 });
  const work = Promise.withResolvers<void>();
  const made = registry.prepare("soon", () => work.promise);
  const early = await ask();
  assert.equal(early.status, 503);
  assert.ok(early.headers.get("retry-after"));
  assert.match((await early.json()).error.message, /being compressed/);
  work.reject(new Error("disk full"));
  await assert.rejects(made, /disk full/);
  assert.equal((await ask()).status, 404);
});
