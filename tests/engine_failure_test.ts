/** A thread of an engine that dies under requests: they hear it, and the next one finds a new engine. */
import assert from "node:assert/strict";
import type { GenerateRequest } from "../engine/types.ts";
import { FakeServer, readEvents } from "./fake_server.ts";
import { openChatting } from "./testing/chatting_model.ts";
import { until } from "./until.ts";

const BODY = { model: "fake", prompt: "Once upon a time", max_tokens: 400, temperature: 0, ignore_eos: true };

Deno.test("when an engine's thread dies its requests fail clearly, and the next one starts it again", async () => {
  await using server = await FakeServer.start({ open: () => openChatting() });
  const { registry, telemetry } = server.services;
  const stream = await server.post("/v1/completions", { ...BODY, n: 8, stream: true });
  const whole = server.post("/v1/completions", BODY);
  {
    using lease = await registry.acquire("fake");
    await until(() => lease.model.engine.stats().running === 9);
    // What no caller can send: the thread throws on it where nobody expects that.
    const broken = { promptIds: [1], maxTokens: 1, stopIds: [] } as unknown as GenerateRequest;
    await assert.rejects(Array.fromAsync(lease.model.engine.generate(broken)), /compute thread failed/);
    assert.match(lease.model.engine.failure!, /compute thread failed/);
  }
  const last = (await readEvents(stream)).at(-1) as { error?: { code: string } };
  assert.equal(last.error?.code, "unavailable");
  const failed = await whole;
  assert.equal(failed.status, 503);
  assert.ok(failed.headers.get("retry-after"));
  assert.match((await failed.json()).error.message, /thread/);
  assert.equal((await server.get("/healthz")).status, 200);

  const next = await (await server.post("/v1/completions", BODY)).json();
  assert.equal(next.usage.completion_tokens, 400);
  assert.match(await telemetry.metricsText(), /^oatmill_model_unloads_total\{.*reason="failed".*\} 1$/m);
});
