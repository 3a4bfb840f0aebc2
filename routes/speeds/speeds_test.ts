import assert from "node:assert/strict";
import { OatmillError } from "../../errors.ts";
import { openDatabase } from "../../store/database.ts";
import { SpeedStore } from "../../store/speed_store.ts";
import { fakeMeasure, FakeServer } from "../../tests/fake_server.ts";
import { until } from "../../tests/until.ts";
import type { MeasureSpeed } from "./measure_speed.ts";

const all = async (server: FakeServer) => (await (await server.get("/v1/speeds")).json()).data;

Deno.test("a speed is measured once at a time, kept with its version, and goes with it", async () => {
  const begun: string[] = [], go = Promise.withResolvers<void>();
  const measure: MeasureSpeed = async (task, signal) => {
    begun.push(task.artifact);
    await go.promise;
    return await fakeMeasure(task, signal);
  };
  await using server = await FakeServer.start({ measure });
  const answer = await server.post("/v1/speeds", { model: "fake" });
  const running = await answer.json();
  assert.deepEqual([answer.status, running.status, running.result], [202, "running", null]);
  assert.equal((await server.post("/v1/speeds", { model: "fake" })).status, 409);
  go.resolve();
  await until(async () => (await all(server))[0].status === "succeeded");
  const [{ version, result }] = await all(server);
  assert.deepEqual([version, result.dense_int8.decode, result.ratio.decode], [running.version, 40, 1.5]);
  assert.ok(begun[0].startsWith(server.services.data.root));
  const database = openDatabase(server.services.data.database); // as of a server that was started anew
  assert.deepEqual(new SpeedStore(database).list().map((one) => one.version), [version]);
  database.close();
  await server.services.registry.remove("fake");
  assert.deepEqual(await all(server), []);
});

Deno.test("a measurement that fails says why and can be tried again; unknown models are refused", async () => {
  let tries = 0;
  const measure: MeasureSpeed = (task, signal) =>
    tries++ > 0
      ? fakeMeasure(task, signal)
      : Promise.reject(new OatmillError("insufficient_memory", "Too little memory"));
  await using server = await FakeServer.start({ measure });
  assert.equal((await server.post("/v1/speeds", { model: "none" })).status, 404);
  await server.post("/v1/speeds", { model: "fake" });
  await until(async () => (await all(server))[0].status === "failed");
  assert.equal((await all(server))[0].error, "Too little memory");
  await server.post("/v1/speeds", { model: "fake" });
  await until(async () => (await all(server))[0].status === "succeeded");
  assert.equal((await all(server)).length, 1);
});
