import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";

Deno.test("GET /v1/status tells loaded models and the speeds of their answers", async () => {
  await using server = await FakeServer.start({ engine: { script: "abc", tokenDelayMs: 1 } });
  const status = async () => await (await server.get("/v1/status")).json();
  const before = await status();
  assert.deepEqual([before.object, before.not_ready, before.models, before.speeds], ["status", null, [], []]);
  assert.ok(before.memory.process_bytes > 0 && before.memory.process_bytes < before.memory.machine_bytes);
  for (const path of ["/v1/completions", "/v1/chat/completions"]) {
    const messages = [{ role: "user", content: "x" }];
    await (await server.post(path, { model: "fake", prompt: "x", messages })).text();
  }
  const { models: [loaded], speeds: [speed] } = await status();
  const stats = server.engines[0].stats();
  assert.deepEqual([loaded.id, loaded.kv_blocks.total, loaded.running], ["fake", stats.kvBlocksTotal, 0]);
  assert.deepEqual([speed.model, speed.answers], ["fake", 2]);
  assert.ok(speed.tokens_per_second > 0);
});
