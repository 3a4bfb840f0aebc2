import assert from "node:assert/strict";
import { join } from "node:path";
import { LoadTimes } from "../engine/load_times.ts";
import { OatmillError } from "../errors.ts";
import { writePeftFolder } from "../models/testing/peft_folder.ts";
import { byteTokenizer, FakeEngine } from "../tests/fake_engine.ts";
import { until } from "../tests/until.ts";
import { fakeHeader, FakeServer } from "../tests/fake_server.ts";

const { spec: SPEC } = fakeHeader("fake");
const FILES = ["adapter_config.json", "adapter_model.safetensors"];

/** The two files of a random adapter of the fake model. */
async function adapterFiles(spec = SPEC, seed = 1): Promise<File[]> {
  const dir = await Deno.makeTempDir();
  try {
    await writePeftFolder(dir, spec, { seed });
    return await Promise.all(
      FILES.map(async (name) => new File([await Deno.readFile(join(dir, name))], name)),
    );
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}
function form(files: readonly File[], name?: string): FormData {
  const body = new FormData();
  for (const file of files) body.append("files", file);
  if (name !== undefined) body.append("name", name);
  return body;
}
const add = async (server: FakeServer, name: string, files?: readonly File[], model = "fake") =>
  await server.get(`/v1/models/${model}/adapters`, {
    method: "POST",
    body: form(files ?? await adapterFiles(), name),
  });
const complete = (server: FakeServer, model: string) =>
  server.post("/v1/completions", { model, prompt: "x", max_tokens: 2 });
const errorOf = async (response: Response) => {
  const { error } = await response.json();
  return [response.status, error.code, error.param, error.message] as const;
};
const filesOf = async (server: FakeServer, room: string) =>
  (await Array.fromAsync(Deno.readDir(join(server.services.data.root, room)))).length;

Deno.test("an adapter is listed with its model, and requests that name it go through it", async () => {
  await using server = await FakeServer.start();
  const added = await add(server, "french");
  assert.equal(added.status, 200);
  const body = await added.json();
  assert.deepEqual([body.id, body.parent, body.root], ["fake:french", "fake", "fake"]);
  const { sha256, bytes, ...shown } = body.adapter;
  assert.deepEqual(shown, { name: "french", rank: 2, layers: 7, parameters: 7 * 32, base_model: null });
  assert.ok(/^[0-9a-f]{64}$/.test(sha256) && bytes > 7 * 32 * 4);
  const { data } = await (await server.get("/v1/models")).json();
  const ids = data.map(({ id, parent }: { id: string; parent: string | null }) => [id, parent]);
  assert.deepEqual(ids, [["fake", null], ["fake:french", "fake"]]);
  const one = await (await server.get("/v1/models/fake:french")).json();
  assert.deepEqual(one, body);
  const list = await (await server.get("/v1/models/fake/adapters")).json();
  assert.deepEqual(list.data, [body]);

  const header = await (await server.get("/v1/models/fake:french/files/oatmill.json")).json();
  assert.equal(header.name, "fake", "the files of what it stands on");
  const version = one.version.slice(0, 8);
  for (const model of ["fake:french", "fake", `fake@${version}:french`]) {
    const answer = await complete(server, model);
    assert.deepEqual([answer.status, (await answer.json()).model], [200, model]);
  }
  const [engine] = server.engines, [key] = engine.adapters();
  assert.match(key, /^french-/);
  assert.deepEqual(engine.requests.map(({ adapter }) => adapter), [key, undefined, key]);
  const chat = await server.post("/v1/chat/completions", {
    model: "fake:french",
    messages: [{ role: "user", content: "x" }],
    max_tokens: 1,
  });
  const response = await server.post("/v1/responses", {
    model: "fake:french",
    input: "x",
    max_output_tokens: 16,
  });
  assert.deepEqual([chat.status, response.status], [200, 200]);
  assert.deepEqual(engine.requests.slice(3).map(({ adapter }) => adapter), [key, key]);
  await Promise.all([chat, response].map((r) => r.body?.cancel()));
  await until(() =>
    server.logs.some((line) => /"adapter":"french".*"operation"|"operation".*"adapter":"french"/.test(line))
  );
});

Deno.test("an adapter that is not there is 404, and the message names those that are", async () => {
  await using server = await FakeServer.start();
  const none = await errorOf(await complete(server, "fake:x"));
  assert.deepEqual(none.slice(0, 3), [404, "model_not_found", "model"]);
  assert.match(none[3], /"fake" has no adapters/);
  await (await add(server, "a")).body?.cancel();
  await (await add(server, "b")).body?.cancel();
  assert.match((await errorOf(await complete(server, "fake:x")))[3], /"fake" has the adapters a, b/);
  assert.equal((await errorOf(await complete(server, "other:a")))[0], 404);
  assert.equal((await errorOf(await add(server, "a", undefined, "other")))[0], 404);
  assert.equal((await errorOf(await server.get("/v1/models/fake/adapters/x", { method: "DELETE" })))[0], 404);
});

Deno.test("what is no adapter of the model is refused, and nothing of it stays", async () => {
  await using server = await FakeServer.start();
  const files = await adapterFiles(), [config, weights] = files;
  await (await add(server, "a")).body?.cancel();
  const wide = { ...SPEC, hiddenSize: 16 };
  const cases: readonly (readonly [Response | Promise<Response>, number, string, RegExp])[] = [
    [add(server, "a"), 409, "conflict", /has an adapter "a" already/],
    [add(server, "b:c"), 400, "invalid_request", /"name"/],
    [add(server, ""), 400, "invalid_request", /"name"/],
    [add(server, "b", [config]), 400, "invalid_adapter", /without adapter_model.safetensors/],
    [add(server, "b", [weights]), 400, "invalid_adapter", /without adapter_config.json/],
    [add(server, "b", [config, new File(["x"], "adapter_model.bin")]), 400, "unsupported_format", /pickle/],
    [add(server, "b", [...files, new File(["x"], "notes.txt")]), 400, "invalid_request", /notes.txt/],
    [add(server, "b", [new File(["{"], FILES[0]), weights]), 400, "invalid_adapter", /adapter_config.json/],
    [add(server, "b", [config, new File(["x"], FILES[1])]), 400, "invalid_checkpoint", /truncated/],
    [add(server, "b", await adapterFiles(wide)), 400, "invalid_adapter", /\[2,16\].*\[2,8\]/],
    [add(server, "b", files, "fake:a"), 400, "invalid_request", /without an adapter/],
    [server.post("/v1/models/fake:a", { version: "12345678" }), 400, "invalid_request", /without an adapter/],
  ];
  for (const [response, status, code, message] of cases) {
    const error = await errorOf(await response);
    assert.deepEqual(error.slice(0, 2), [status, code], error[3]);
    assert.match(error[3], message);
  }
  assert.deepEqual([await filesOf(server, "adapters"), await filesOf(server, "tmp")], [1, 0]);
});

Deno.test("an adapter is made of stored files too", async () => {
  await using server = await FakeServer.start();
  const ids: string[] = [];
  for (const file of await adapterFiles()) {
    const body = new FormData();
    body.append("purpose", "user_data");
    body.append("file", file);
    ids.push((await (await server.get("/v1/files", { method: "POST", body })).json()).id);
  }
  const added = await server.post("/v1/models/fake/adapters", { name: "a", files: ids });
  assert.deepEqual([added.status, (await added.json()).adapter.rank], [200, 2]);
  const twice = await server.post("/v1/models/fake/adapters", { name: "b", files: [ids[0], ids[0]] });
  assert.match((await errorOf(twice))[3], /is there twice/);
  const unknown = await server.post("/v1/models/fake/adapters", { name: "b", files: ["file-x"] });
  assert.equal((await errorOf(unknown))[0], 404);
  const odd = await server.post("/v1/models/fake/adapters", { name: "b", files: [] });
  assert.deepEqual((await errorOf(odd)).slice(0, 3), [400, "invalid_request", "files"]);
  assert.equal(await complete(server, "fake:a").then(async (r) => (await r.body?.cancel(), r.status)), 200);
});

Deno.test("a deleted adapter leaves the engine and the disk, and its name is free", async () => {
  await using server = await FakeServer.start();
  for (const name of ["a", "b"]) {
    await (await add(server, name)).body?.cancel();
    await (await complete(server, `fake:${name}`)).body?.cancel();
  }
  const [engine] = server.engines;
  assert.equal(engine.adapters().length, 2);
  const gone = await server.get("/v1/models/fake/adapters/a", { method: "DELETE" });
  assert.deepEqual(await gone.json(), { id: "fake:a", object: "model", deleted: true });
  assert.equal((await server.get("/v1/models/fake:b", { method: "DELETE" })).status, 200);
  assert.deepEqual([engine.adapters().length, await filesOf(server, "adapters")], [0, 0]);
  assert.equal((await errorOf(await complete(server, "fake:a")))[0], 404);
  assert.equal((await add(server, "a")).status, 200);
  assert.equal((await complete(server, "fake:a")).status, 200);
  await server.services.registry.remove("fake", { drainMs: 1000 });
  assert.equal(await filesOf(server, "adapters"), 0);
  await server.addModel("fake");
  assert.match((await errorOf(await complete(server, "fake:a")))[3], /has no adapters/);
});

Deno.test("a version that an adapter does not fit refuses it by name, and the model answers on", async () => {
  let spec = SPEC;
  await using server = await FakeServer.start({
    open: () =>
      Promise.resolve({
        name: "fake",
        spec,
        engine: new FakeEngine(),
        tokenizer: byteTokenizer,
        encoder: null,
        header: null,
        times: new LoadTimes(),
      }),
  });
  await (await add(server, "a")).body?.cancel();
  assert.equal((await complete(server, "fake:a")).status, 200);
  spec = { ...SPEC, hiddenSize: 16 };
  const version = await server.addModel("fake", "other weights");
  const [status, code, param, message] = await errorOf(await complete(server, "fake:a"));
  assert.deepEqual([status, code, param], [400, "invalid_adapter", "model"]);
  assert.ok(message.includes(`"fake@${version.slice(0, 12)}:a"`), message);
  assert.equal((await complete(server, "fake")).status, 200);
  spec = SPEC;
  await server.addModel("fake", "weights of the first size");
  assert.equal((await complete(server, "fake:a")).status, 200);
});

Deno.test("an engine that is full gives up the adapter that nobody used for the longest time", async () => {
  class SmallEngine extends FakeEngine {
    override addAdapter(name: string): Promise<void> {
      if (this.adapters().length < 2) return super.addAdapter(name);
      return Promise.reject(new OatmillError("insufficient_memory", "There is room for two"));
    }
  }
  const engine = new SmallEngine();
  await using server = await FakeServer.start({
    open: () =>
      Promise.resolve({
        name: "fake",
        spec: SPEC,
        engine,
        tokenizer: byteTokenizer,
        encoder: null,
        header: null,
        times: new LoadTimes(),
      }),
  });
  for (const name of ["a", "b", "c"]) await (await add(server, name)).body?.cancel();
  const ask = async (name: string) => (await (await complete(server, `fake:${name}`)).json()).choices.length;
  for (const name of ["a", "b", "a", "c", "a"]) assert.equal(await ask(name), 1);
  assert.deepEqual(engine.adapters().map((key) => key[0]).sort(), ["a", "c"]);
  const { registry } = server.services;
  const leases = await Promise.all(["fake:a", "fake:c"].map((id) => registry.acquire(id)));
  assert.equal((await errorOf(await complete(server, "fake:b")))[1], "insufficient_memory");
  for (const lease of leases) lease[Symbol.dispose]();
  assert.equal(await ask("b"), 1);
});
