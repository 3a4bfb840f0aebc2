import assert from "node:assert/strict";
import { join } from "node:path";
import { setLogSink } from "../telemetry/log.ts";
import { fakeHeader } from "../tests/fake_server.ts";
import { Server } from "./server.ts";

Deno.test("warmUp() keeps a server from being ready for a model that it must have, not for another", async () => {
  const data = await Deno.makeTempDir();
  const formerSink = setLogSink(() => {});
  try {
    await using server = await Server.open({
      data,
      otlp: null,
      engine: {},
      maxLoaded: 1,
      idleMs: 0,
    });
    const { services: { data: folders, registry, notReady } } = server;
    const damaged = await folders.temporary();
    await Deno.writeTextFile(join(damaged, "oatmill.json"), "{");
    await registry.add("damaged", damaged, fakeHeader("damaged"));
    assert.match(notReady()!, /starting/);
    assert.equal(await server.warmUp("damaged", { required: true }), null);
    assert.match(notReady()!, /"damaged" does not load/);
    assert.equal(await server.warmUp("damaged", { required: false }), null);
    assert.equal(notReady(), null);
  } finally {
    setLogSink(formerSink);
    await Deno.remove(data, { recursive: true });
  }
});
