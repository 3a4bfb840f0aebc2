/** How the real server stops: what it tells whom, and what it leaves. */
import assert from "node:assert/strict";
import { readEvents } from "./fake_server.ts";
import { ServerProcess } from "./server_process.ts";
import { dataFolderWithModel } from "./testing/data_folder.ts";
import { until } from "./until.ts";

const BODY = { model: "stories-5m", prompt: "Once", max_tokens: 480, ignore_eos: true, stream: true };
/** Long for the little model: 16 stories at once, and nobody reads them until the end. */
const MANY = { ...BODY, n: 16 };

Deno.test("signals: SIGHUP and SIGPIPE change nothing, SIGTERM drains, the data folder is free again", async () => {
  const data = await dataFolderWithModel();
  try {
    const server = await ServerProcess.start(data);
    server.child.kill("SIGHUP");
    server.child.kill("SIGPIPE");
    await until(() => server.log.includes("SIGHUP ignored"));
    assert.equal((await server.get("/readyz")).status, 200);
    const stream = await server.post("/v1/completions", MANY);
    server.child.kill("SIGTERM");
    await until(() => server.log.includes("shutting down"));
    const ready = await server.get("/readyz").catch(() => null); // the stream may have ended meanwhile
    if (ready) assert.match(JSON.stringify(await ready.json()), /shutting down/);
    assert.equal((await readEvents(stream)).at(-1), "[DONE]");
    assert.equal((await server.child.status).code, 0);

    const hurried = await ServerProcess.start(data, { args: ["--drain-timeout", "0"] });
    const cut = await hurried.post("/v1/completions", MANY);
    assert.equal(await hurried.stop(), 0);
    const last = (await readEvents(cut)).at(-1) as { error?: { code: string } } | string;
    assert.ok(last === "[DONE]" || typeof last === "object" && last.error?.code === "unavailable");

    const stuck = await ServerProcess.start(data, { args: ["--drain-delay", "1000"] });
    stuck.child.kill("SIGINT");
    await until(() => stuck.log.includes("shutting down"));
    assert.equal((await stuck.post("/v1/completions", BODY)).status, 503);
    stuck.child.kill("SIGINT");
    assert.equal((await stuck.child.status).code, 130);
    await (await ServerProcess.start(data))[Symbol.asyncDispose]();
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});
