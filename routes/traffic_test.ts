import assert from "node:assert/strict";
import { FakeServer, readEvents } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

const BODY = { model: "fake", prompt: "a", max_tokens: 40 };

Deno.test("a server that leaves refuses requests, answers probes and lets a stream end", async () => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 5 } });
  const { traffic } = server.services;
  const stream = await server.post("/v1/completions", { ...BODY, stream: true });
  assert.equal(traffic.open, 1);
  traffic.leave();
  const refused = await server.post("/v1/completions", BODY);
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get("retry-after"), "2");
  assert.equal(refused.headers.get("connection"), "close");
  assert.equal((await refused.json()).error.code, "unavailable");
  assert.equal((await server.get("/healthz")).status, 200);
  assert.equal(traffic.open, 1);
  const idle = traffic.idle();
  assert.equal((await readEvents(stream)).at(-1), "[DONE]");
  await idle;
});

Deno.test("a request counts until its answer is sent, or its client is gone", async () => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 5 } });
  const { traffic } = server.services;
  await (await server.post("/v1/completions", BODY)).text();
  await until(() => traffic.open === 0);
  const left = await server.post("/v1/completions", { ...BODY, stream: true });
  assert.equal(traffic.open, 1);
  await left.body!.cancel();
  await traffic.idle();
});
