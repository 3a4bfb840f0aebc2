import assert from "node:assert/strict";
import { openDatabase } from "../../store/database.ts";
import { LoadStore } from "../../store/load_store.ts";
import { FakeServer } from "../../tests/fake_server.ts";
import { until } from "../../tests/until.ts";
import { LoadRunner } from "./load_runner.ts";

/** A token for each byte: the load's first questions are longer than the usual 512. */
const ENGINE = { tokenDelayMs: 1, contextLength: 8192 };
const LOAD = { model: "fake", concurrency: 2, requests: 6, seconds: 30, input_tokens: 8, output_tokens: 4 };

async function started(server: FakeServer, settings: object = {}, headers: HeadersInit = {}) {
  const response = await server.post("/v1/loads", { ...LOAD, ...settings }, { headers });
  return { status: response.status, body: await response.json() };
}
const over = async (server: FakeServer, id: string, headers: HeadersInit = {}) => {
  const get = async () => await (await server.get(`/v1/loads/${id}`, { headers })).json();
  await until(async () => (await get()).status !== "running");
  return await get();
};

Deno.test("a load measures this server, within its limits", async () => {
  await using server = await FakeServer.start({ engine: ENGINE });
  const { status, body } = await started(server);
  assert.deepEqual([status, body.object, body.status], [202, "load", "running"]);
  const { status: state, result, error } = await over(server, body.id);
  assert.deepEqual([state, error, result.requests, result.errors], ["succeeded", null, 6, 0]);
  assert.equal(result.output_tokens, 6 * 4);
  assert.ok(result.max_in_flight <= 2 && result.ttft_ms.p50 > 0 && result.output_tokens_per_second > 0);
  const { data } = await (await server.get("/v1/loads")).json();
  assert.deepEqual(data.map((run: { id: string }) => run.id), [body.id]);
  const database = openDatabase(server.services.data.database);
  using later = new LoadRunner(new LoadStore(database)); // as of a server that was started anew
  const kept = later.get(body.id);
  assert.deepEqual([kept.state, kept.settings, kept.result], ["succeeded", body.settings, result]);
  database.close();
});

Deno.test("one load runs at a time; a cancelled one keeps what it measured", async () => {
  await using server = await FakeServer.start({ engine: ENGINE });
  const { body: { id } } = await started(server, { requests: 10_000 });
  assert.deepEqual((await started(server)).status, 409);
  await until(async () => (await (await server.get(`/v1/loads/${id}`)).json()).progress.at(-1)?.requests > 0);
  assert.equal((await server.post(`/v1/loads/${id}/cancel`, {})).status, 200);
  const run = await over(server, id);
  assert.equal(run.status, "cancelled");
  assert.ok(run.result.interrupted && run.result.requests > 0);
  assert.equal((await server.post(`/v1/loads/${id}/cancel`, {})).status, 409);
});

Deno.test("loads beyond the bounds and of unknown models are refused", async () => {
  await using server = await FakeServer.start();
  for (
    const [field, value] of Object.entries({ concurrency: 65, seconds: 301, rate: 101, output_tokens: 1025 })
  ) {
    const { status, body } = await started(server, { [field]: value });
    assert.deepEqual([status, body.error.param], [400, field]);
  }
  assert.equal((await started(server, { model: "none" })).status, 404);
  assert.equal((await server.get("/v1/loads/load-x")).status, 404);
});

Deno.test("a load needs an admin's key, and its requests go by that key", async () => {
  await using server = await FakeServer.start({ engine: ENGINE, apiKeys: ["key-of-the-operator"] });
  const reader = { authorization: `Bearer ${server.keys.add("reader", ["read", "infer"]).key}` };
  assert.equal((await started(server, {}, reader)).status, 403);
  const operator = { authorization: "Bearer key-of-the-operator" };
  const { body } = await started(server, {}, operator);
  assert.deepEqual((await over(server, body.id, operator)).result.errors, 0);
});
