import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { fakeResult, FakeServer, type FakeServerOptions, readEvents } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const withServer = (name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });
const json = async (response: Response | Promise<Response>): Promise<Json> => await (await response).json();
const complete = (server: FakeServer, model: string, more: object = {}) =>
  server.post("/v1/completions", { model, prompt: "a", max_tokens: 2, ...more });
const fingerprint = async (server: FakeServer, model: string): Promise<string> =>
  (await json(complete(server, model))).system_fingerprint;
const remove = (server: FakeServer, path: string) => server.get(`/v1/models/${path}`, { method: "DELETE" });
const folders = (server: FakeServer) =>
  [...Deno.readDirSync(join(server.services.data.root, "models"))].length;
const currentOf = (server: FakeServer) => server.services.registry.get("fake").version;

withServer("a name answers from its last version, name@sha from that one", {}, async (server) => {
  const first = currentOf(server), second = await server.addModel("fake", "other weights");
  assert.notEqual(first, second);
  assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
  for (const digits of [8, 12, 64]) {
    const id = `fake@${first.slice(0, digits)}`;
    const answer = await json(complete(server, id));
    assert.deepEqual([answer.model, answer.system_fingerprint], [id, first.slice(0, 12)]);
  }
  assert.equal(await fingerprint(server, `fake@${first.toUpperCase()}`), first.slice(0, 12));
  const chat = { model: "fake", messages: [{ role: "user", content: "a" }], max_tokens: 2, stream: true };
  const chunks = await readEvents(await server.post("/v1/chat/completions", chat)) as Json[];
  assert.equal(chunks.pop(), "[DONE]");
  for (const chunk of chunks) assert.equal(chunk.system_fingerprint, second.slice(0, 12));
});

withServer("versions are listed, shown, and their files handed out", {}, async (server) => {
  const first = currentOf(server), second = await server.addModel("fake", "other weights");
  const { data: [model] } = await json(server.get("/v1/models"));
  assert.deepEqual([model.id, model.version], ["fake", second]);
  assert.deepEqual(
    model.versions.map((v: Json) => [v.version, v.current]),
    [[second, true], [first, false]],
  );
  const old = await json(server.get(`/v1/models/fake@${first.slice(0, 8)}`));
  assert.deepEqual([old.id, old.version], [`fake@${first.slice(0, 12)}`, first]);
  assert.deepEqual(old.versions, model.versions);
  const file = async (id: string) =>
    await (await server.get(`/v1/models/${id}/files/model.safetensors`)).text();
  assert.deepEqual([await file("fake"), await file(`fake%40${first}`)], ["other weights", "weights"]);
});

withServer("what addresses no version, or several, is refused and says why", {}, async (server) => {
  const first = currentOf(server), other = first.slice(0, 10) + "f".repeat(54);
  const { registry } = server.services;
  const cases: [id: string, status: number, message: RegExp][] = [
    ["fake@1234567", 404, /8 to 64 hexadecimal digits/],
    ["fake@", 404, /8 to 64/],
    ["fake@zzzzzzzz", 404, /8 to 64/],
    ["fake@00000000", 404, new RegExp(`has the versions ${first.slice(0, 12)}`)],
    ["none@00000000", 404, /does not exist/],
  ];
  for (const [model, status, message] of cases) {
    const response = await complete(server, model), { error } = await response.json();
    assert.deepEqual([response.status, error.code, error.param], [status, "model_not_found", "model"]);
    assert.match(error.message, message);
  }
  // A twin of the first ten digits cannot be computed, only written.
  const { id, folder, createdMs, info } = registry.get("fake");
  server.models.add({ id, version: other, folder: `${folder}-twin`, createdMs, info });
  const { error } = await json(complete(server, `fake@${first.slice(0, 10)}`));
  assert.deepEqual([error.code, error.param], ["invalid_request", "model"]);
  assert.match(error.message, /give more digits/);
  assert.equal((await complete(server, `fake@${first.slice(0, 14)}`)).status, 200);
});

withServer("the same content is one version and leaves one folder", {}, async (server) => {
  const first = currentOf(server);
  assert.equal(await server.addModel("fake"), first);
  await server.addModel("fake", "other weights");
  assert.equal(await server.addModel("fake"), first, "and the name points at it again");
  assert.equal(currentOf(server), first);
  assert.equal(server.services.registry.versions("fake").length, 2);
  assert.equal(folders(server), 2);
  assert.equal(await server.addModel("twin"), first, "under another name it is that name's own");
  assert.equal(folders(server), 3);
});

withServer("requests end on the version they began with, then its engine is closed", {
  engine: { tokenDelayMs: 2 },
}, async (server) => {
  const first = currentOf(server);
  const stream = complete(server, "fake", { max_tokens: 400, stream: true });
  await until(() => server.engines[0]?.running === 1);
  const second = await server.addModel("fake", "other weights");
  assert.equal(server.engines.length, 2, "the new engine is there before the name stands for it");
  assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
  assert.equal(server.engines[0].closed, false);
  const chunks = await readEvents(await stream) as Json[];
  assert.equal(chunks.pop(), "[DONE]");
  assert.deepEqual(new Set(chunks.map((c) => c.system_fingerprint)), new Set([first.slice(0, 12)]));
  assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  await until(() => server.engines[0].closed);
  assert.deepEqual(server.services.registry.stats().map((s) => s.version), [second]);
  const metrics = await server.services.telemetry.metricsText();
  assert.match(metrics, /oatmill_model_unloads_total\{.*reason="replaced".*\} 1/);
  assert.match(metrics, /oatmill_model_switches_total\{gen_ai_request_model="fake".*\} 1/);
  assert.ok(!metrics.includes(second.slice(0, 12)), "versions are no attributes: they have no bound");
  await until(() =>
    server.logs.some((l) => JSON.parse(l).version === second.slice(0, 12) && l.includes('"request"'))
  );
});

withServer("an engine that is to close stays open for who asks for its version", {
  engine: { tokenDelayMs: 2 },
}, async (server) => {
  const first = currentOf(server);
  const running = complete(server, "fake", { max_tokens: 300 });
  await until(() => server.engines[0]?.running === 1);
  await server.addModel("fake", "other weights");
  const asked = complete(server, `fake@${first}`, { max_tokens: 400 });
  await until(() => server.engines[0].running === 2);
  await json(running);
  assert.equal((await json(asked)).system_fingerprint, first.slice(0, 12));
  assert.equal(server.engines[0].closed, false);
});

withServer("a name goes back to a version that it had", {}, async (server) => {
  const first = currentOf(server), second = await server.addModel("fake", "other weights");
  const point = (id: string, version: unknown) => server.post(`/v1/models/${id}`, { version });
  const model = await json(point("fake", first.slice(0, 8)));
  assert.deepEqual([model.id, model.version, model.versions[1].version], ["fake", first, second]);
  assert.equal(await fingerprint(server, "fake"), first.slice(0, 12));
  const cases: [id: string, version: unknown, status: number, code: string][] = [
    ["fake", "00000000", 404, "model_not_found"],
    ["fake", "short", 404, "model_not_found"],
    ["none", first, 404, "model_not_found"],
    [`fake@${second}`, first, 400, "invalid_request"],
    ["fake", 7, 400, "invalid_request"],
  ];
  for (const [id, version, status, code] of cases) {
    const response = await point(id, version);
    assert.deepEqual(
      [response.status, (await response.json()).error.code],
      [status, code],
      `${id} ${version}`,
    );
  }
  assert.equal(currentOf(server), first);
});

withServer("versions beyond those to keep go, but none that is in use", {
  keepVersions: 2,
}, async (server) => {
  const { registry } = server.services;
  const first = currentOf(server);
  const lease = await registry.acquire("fake");
  const added = [];
  for (const weights of ["2", "3", "4"]) added.push(await server.addModel("fake", weights));
  const versions = () => registry.versions("fake").map((v) => v.version);
  assert.deepEqual(versions(), [added[2], added[1], first]);
  assert.equal(lease.closed, null);
  lease[Symbol.dispose]();
  await until(() => versions().length === 2 && folders(server) === 2);
  assert.equal((await complete(server, `fake@${first}`)).status, 404);
});

withServer("a version that does not load leaves the name where it is, and the job says so", {
  run: async (task) => {
    await Deno.mkdir(task.out);
    return fakeResult(task.name, task.out, `damaged ${task.recipe.rate}`);
  },
}, async (server) => {
  const first = currentOf(server);
  await fingerprint(server, "fake"); // loads it
  server.failLoads = new OatmillError("invalid_artifact", "Cannot read /data/models/x: the SHA-256 differs");
  const submit = async (): Promise<Json> => {
    const body = new FormData();
    body.append("name", "fake");
    body.append("files", new Blob(["x"]), "a.gguf");
    const { id } = await json(server.get("/v1/models", { method: "POST", body }));
    await (await server.get(`/v1/compressions/${id}/events?stream=true`)).text();
    return await json(server.get(`/v1/compressions/${id}`));
  };
  const job = await submit();
  assert.deepEqual([job.status, job.error.code], ["failed", "invalid_artifact"]);
  assert.match(
    job.error.message,
    new RegExp(`"fake" stays at version ${first.slice(0, 12)}: .* does not load`),
  );
  assert.doesNotMatch(job.error.message, /data\/models/);
  assert.deepEqual([await fingerprint(server, "fake"), folders(server)], [first.slice(0, 12), 1]);

  server.failLoads = new OatmillError("insufficient_memory", "The machine has 1 GiB left");
  using lease = await server.services.registry.acquire("fake");
  const { error } = await submit();
  assert.equal(error.code, "insufficient_memory");
  assert.match(error.message, /it is kept/);
  assert.equal(lease.closed, null);
  const [kept, second] = server.services.registry.versions("fake");
  assert.deepEqual([kept.version, folders(server)], [first, 2], "it may load when there is more memory");
  server.failLoads = null;
  const switched = await json(server.post("/v1/models/fake", { version: second.version }));
  assert.equal(switched.version, second.version);
  assert.equal(await fingerprint(server, "fake"), second.version.slice(0, 12));
});

withServer("an idle engine gives its memory to its successor where only one fits", {}, async (server) => {
  await fingerprint(server, "fake");
  server.failLoads = new OatmillError("insufficient_memory", "The machine has 1 GiB left");
  server.failLoadsWhile = () => !server.engines[0].closed;
  const second = await server.addModel("fake", "other weights");
  assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
  assert.deepEqual(server.engines.map((e) => e.closed), [true, false]);
});

/** Submits a compression that makes a version of "fake". */
function submit(server: FakeServer): Promise<Response> {
  const body = new FormData();
  body.append("name", "fake");
  body.append("files", new Blob(["x"]), "a.gguf");
  return server.get("/v1/models", { method: "POST", body });
}

withServer("a model in use is not deleted, unless its requests may end first", {
  engine: { tokenDelayMs: 2 },
}, async (server) => {
  const whole = complete(server, "fake", { max_tokens: 400 });
  await until(() => server.engines[0]?.running === 1);
  const refused = await remove(server, "fake"), { error } = await refused.json();
  assert.deepEqual([refused.status, error.code, error.type], [409, "conflict", "invalid_request_error"]);
  assert.match(error.message, /drain=true/);
  const drained = remove(server, "fake?drain=true");
  await until(async () => (await complete(server, "fake")).status === 404);
  assert.equal(server.engines[0].closed, false);
  const job = await submit(server); // it would bring the name back
  assert.deepEqual([job.status, (await job.json()).error.code], [409, "conflict"]);
  assert.equal((await json(whole)).choices[0].finish_reason, "length");
  assert.deepEqual(await json(drained), { id: "fake", object: "model", deleted: true });
  assert.deepEqual([server.engines[0].closed, folders(server)], [true, 0]);
  assert.equal((await submit(server)).status, 202);
});

withServer("a model that a compression makes is not deleted", {
  run: async (_task, { signal }) => {
    await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    throw new Error("unreachable");
  },
}, async (server) => {
  const [first, second] = [await json(submit(server)), await json(submit(server))];
  assert.deepEqual([first.model, second.model, second.status], ["fake", "fake", "queued"]);
  for (const path of ["fake", "fake?drain=true"]) {
    const response = await remove(server, path), { error } = await response.json();
    assert.deepEqual([response.status, error.code], [409, "conflict"]);
    assert.match(error.message, /cmp-.*cancel it/);
  }
  for (const { id } of [second, first]) await server.post(`/v1/compressions/${id}/cancel`, {});
  assert.equal((await remove(server, "fake")).status, 200);
});

withServer("one version is deleted, but not the current one of several", {}, async (server) => {
  const first = currentOf(server), second = await server.addModel("fake", "other weights");
  const refused = await remove(server, `fake@${second}`);
  assert.deepEqual([refused.status, (await refused.json()).error.code], [409, "conflict"]);
  const id = `fake@${first.slice(0, 8)}`;
  assert.deepEqual(await json(remove(server, id)), { id, object: "model", deleted: true });
  assert.equal((await remove(server, id)).status, 404);
  assert.equal(folders(server), 1);
  assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
  assert.equal((await remove(server, `fake@${second}`)).status, 200, "the last one takes the name along");
  assert.equal((await complete(server, "fake")).status, 404);
});

withServer(
  "old versions that cannot be removed do not undo a switch",
  { keepVersions: 1 },
  async (server) => {
    const { models } = server, { remove } = models;
    models.remove = () => {
      throw new Error("database or disk is full");
    };
    const second = await server.addModel("fake", "2");
    assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
    assert.equal(server.services.registry.versions("fake").length, 2);
    models.remove = remove;
    await server.addModel("fake", "3");
    assert.deepEqual([server.services.registry.versions("fake").length, folders(server)], [1, 1]);
  },
);

withServer("a database that takes no writes stops no answer and loses no model", {}, async (server) => {
  const first = currentOf(server), { models } = server;
  const full = () => {
    throw Object.assign(new Error("database or disk is full"), { code: "ERR_SQLITE_ERROR" });
  };
  const { use, add, remove: removeRows } = models;
  Object.assign(models, { use: full, add: full, remove: full });
  assert.equal(await fingerprint(server, "fake"), first.slice(0, 12));
  await assert.rejects(server.addModel("fake", "other weights"), /disk is full/);
  assert.ok((await remove(server, "fake?drain=true")).status >= 500);
  assert.equal(await fingerprint(server, "fake"), first.slice(0, 12), "and it is on no way out");
  Object.assign(models, { use, add, remove: removeRows });
  assert.equal((await remove(server, "fake")).status, 200);
});

withServer("a disk that cannot be read when an old version is free ends nothing", {
  keepVersions: 1,
}, async (server) => {
  const { registry } = server.services;
  const lease = await registry.acquire("fake");
  const second = await server.addModel("fake", "other weights"); // the first stays, as it is in use
  const versions = server.models.versions;
  server.models.versions = () => {
    throw new Error("disk I/O error");
  };
  lease[Symbol.dispose]();
  await until(() => server.logs.some((line) => line.includes("cannot look for old versions")));
  server.models.versions = versions;
  assert.equal(await fingerprint(server, "fake"), second.slice(0, 12));
  assert.equal(folders(server), 2);
});
