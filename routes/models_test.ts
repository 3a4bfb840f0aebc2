import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { fakeRun, FakeServer, type FakeServerOptions, readEvents } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import type { CompressTask } from "./compress_task.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const withServer = (name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });

function form(files: Record<string, string>, fields: Record<string, string> = {}): FormData {
  const data = new FormData();
  for (const [k, v] of Object.entries(fields)) data.append(k, v);
  for (const [name, text] of Object.entries(files)) data.append("files", new Blob([text]), name);
  return data;
}
const upload = (server: FakeServer, body: FormData) => server.get("/v1/models", { method: "POST", body });
const leftovers = (server: FakeServer) =>
  [...Deno.readDirSync(join(server.services.data.root, "tmp"))].map((e) => e.name);

/** The job's events until its end; then the job. */
async function finished(server: FakeServer, id: string): Promise<Json> {
  const headers = { accept: "text/event-stream" };
  const events = await readEvents(await server.get(`/v1/compressions/${id}/events`, { headers }));
  assert.equal(events.at(-1), "[DONE]");
  return await (await server.get(`/v1/compressions/${id}`)).json();
}
const settled = (server: FakeServer) => until(() => leftovers(server).length === 0);

withServer("models are listed, shown, downloaded and deleted", {}, async (server) => {
  const list = await (await server.get("/v1/models")).json();
  assert.equal(list.object, "list");
  const [model] = list.data;
  assert.deepEqual([model.id, model.object, model.owned_by], ["fake", "model", "oatmill"]);
  assert.equal(model.sparsity, 0.25);
  assert.deepEqual(await (await server.get("/v1/models/fake")).json(), model);
  const file = await server.get("/v1/models/fake/files/model.safetensors");
  assert.equal(file.headers.get("content-length"), "7");
  assert.equal(file.headers.get("etag"), `"${model.files[0].sha256}"`);
  assert.equal(await file.text(), "weights");
  for (const name of ["none", "..%2f..%2foatmill.db", "__proto__"]) {
    const response = await server.get(`/v1/models/fake/files/${name}`);
    assert.equal(response.status, 404, name);
    await response.body?.cancel();
  }
  const gone = await server.get("/v1/models/fake", { method: "DELETE" });
  assert.deepEqual(await gone.json(), { id: "fake", object: "model", deleted: true });
  assert.equal((await (await server.get("/v1/models/fake")).json()).error.code, "model_not_found");
  assert.deepEqual([...Deno.readDirSync(join(server.services.data.root, "models"))], []);
});

withServer("a model deleted in use ends the answers that take too long, which say why", {
  engine: { tokenDelayMs: 5 },
}, async (server) => {
  const body = { model: "fake", prompt: "a", max_tokens: 400 };
  const stream = await server.post("/v1/completions", { ...body, stream: true });
  const whole = server.post("/v1/completions", body);
  await until(() => server.engines[0].running === 2);
  const url = "/v1/models/fake?drain=true&timeout=0.05";
  assert.equal((await server.get(url, { method: "DELETE" })).status, 200);
  const expected = {
    message: 'The model "fake" was deleted',
    type: "server_error",
    param: null,
    code: "unavailable",
  };
  assert.deepEqual((await readEvents(stream)).at(-1), { error: expected });
  assert.deepEqual(await (await whole).json(), { error: expected });
});

Deno.test({
  name: "HEAD answers with headers only and keeps no file open",
  sanitizeResources: true,
  async fn() {
    await using server = await FakeServer.start();
    const response = await server.get("/v1/models/fake/files/model.safetensors", { method: "HEAD" });
    assert.deepEqual([response.status, response.headers.get("content-length")], [200, "7"]);
    assert.equal(await response.text(), "");
  },
});

withServer("engines of models that were not used for longest make room", { maxLoaded: 1 }, async (server) => {
  await server.addModel("other");
  for (const model of ["fake", "other", "fake"]) {
    await (await server.post("/v1/completions", { model, prompt: "a" })).text();
  }
  assert.deepEqual(server.engines.map((e) => e.closed), [true, true, false]);
});

withServer(
  "a damaged model is the server's fault: the answer says what to do, the log why",
  {},
  async (server) => {
    server.failLoads = new OatmillError(
      "invalid_artifact",
      'Cannot load "/data/models/f": the SHA-256 differs',
    );
    for (let i = 0; i < 2; i++) {
      const response = await server.post("/v1/completions", { model: "fake", prompt: "a" });
      const { error } = await response.json();
      assert.deepEqual([response.status, error.type, error.code], [500, "server_error", "invalid_artifact"]);
      assert.match(error.message, /"fake".*delete it/);
      assert.doesNotMatch(error.message, /\/data/);
    }
    assert.ok(server.logs.some((l) => l.includes("the SHA-256 differs")));
    assert.equal((await server.get("/v1/models/fake", { method: "DELETE" })).status, 200);
  },
);

const tasks: CompressTask[] = [];
const recordingRun: FakeServerOptions["run"] = async (task, options) => {
  tasks.push(task);
  if (task.archive === null && task.source.endsWith(".gguf")) {
    assert.equal(await Deno.readTextFile(task.source), "gguf!");
  }
  return await fakeRun(task, options);
};

withServer("an upload becomes a job and the job a model", { run: recordingRun }, async (server) => {
  const response = await upload(server, form({ "tiny.Q4_1.gguf": "gguf!" }, { recipe: '{"rate": 0.5}' }));
  assert.equal(response.status, 202);
  const job = await response.json();
  assert.deepEqual([job.object, job.model, job.recipe.rate], ["compression", "tiny.Q4_1", 0.5]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode("gguf!"));
  const sha256 = new Uint8Array(digest).toHex();
  assert.deepEqual(job.files, [{ name: "tiny.Q4_1.gguf", bytes: 5, sha256 }]);
  const done = await finished(server, job.id);
  assert.deepEqual([done.status, done.error, done.result.bytes], ["succeeded", null, 100]);
  const completion = await server.post("/v1/completions", { model: "tiny.Q4_1", prompt: "a", max_tokens: 1 });
  assert.equal(completion.status, 200);
  await completion.body!.cancel();
  await settled(server);
});

withServer("an upload may be a folder's files with texts for the recipe, or an archive", {
  run: recordingRun,
}, async (server) => {
  tasks.length = 0;
  const folder = { "config.json": "{}", "model.safetensors": "x", "my.txt": "text" };
  const recipe = JSON.stringify({ calibration: { text: "my.txt" } });
  const job = await (await upload(server, form(folder, { name: "a", recipe }))).json();
  assert.equal((await finished(server, job.id)).recipe.calibration.text, "my.txt");
  assert.equal(tasks[0].recipe.calibration.text, join(tasks[0].source, "my.txt"));
  const archived = await (await upload(server, form({ "m.tar.gz": "x" }, { name: "b" }))).json();
  await finished(server, archived.id);
  assert.match(tasks[1].archive!, /m\.tar\.gz$/);
});

withServer("images of an upload stand together for the recipe", { run: recordingRun }, async (server) => {
  tasks.length = 0;
  const folder = { "config.json": "{}", "model.safetensors": "x", "a.png": "a", "b.JPG.jpg": "b" };
  const recipe = JSON.stringify({ calibration: { text: "images" } });
  const job = await (await upload(server, form(folder, { name: "v", recipe }))).json();
  assert.equal((await finished(server, job.id)).status, "succeeded");
  assert.equal(tasks[0].recipe.calibration.text, join(tasks[0].source, "images"));
  const without = form({ "a.gguf": "x" }, { recipe });
  const { error } = await (await upload(server, without)).json();
  assert.deepEqual([error.code, error.param], ["invalid_recipe", "recipe.calibration.text"]);
});

withServer("an upload may be a graph with what lies beside it", { run: recordingRun }, async (server) => {
  tasks.length = 0;
  const files = { "m.onnx": "x", "m.onnx.data": "y", "config.json": "{}", "preprocessor_config.json": "{}" };
  const inputs = { "rows.safetensors": "z" },
    recipe = JSON.stringify({ calibration: { text: "rows.safetensors" } });
  const job = await (await upload(server, form({ ...files, ...inputs }, { recipe }))).json();
  assert.deepEqual([job.model, (await finished(server, job.id)).status], ["m", "succeeded"]);
  assert.match(tasks[0].source, /m\.onnx$/);
  assert.match(tasks[0].recipe.calibration.text, /rows\.safetensors$/);
});

withServer(
  "a model of a hub becomes a job, with the server's token and limits",
  { run: recordingRun },
  async (server) => {
    tasks.length = 0;
    const source = { hub: "tiny/llama", revision: "v1" };
    const response = await server.post("/v1/models", { source, recipe: { rate: 0.5 } });
    assert.equal(response.status, 202);
    const job = await response.json();
    assert.deepEqual([job.model, job.recipe.rate, job.files], ["llama", 0.5, []]);
    assert.equal((await finished(server, job.id)).status, "succeeded");
    const [{ hub, source: folder, maxBytes }] = tasks;
    assert.deepEqual(hub, {
      ...{ repo: "tiny/llama", revision: "v1" },
      access: { url: "http://hub.test", token: "hf_test" },
    });
    assert.match(folder, /pulled$/);
    assert.equal(maxBytes, server.services.limits.uploadBytes);
    const named = await (await server.post("/v1/models", { source: { hub: "a/b", file: "c.Q4_0.gguf" } }))
      .json();
    assert.equal(named.model, "c.Q4_0");
    await finished(server, named.id);
    assert.ok(!(await (await server.get("/v1/compressions")).text()).includes("hf_test"));
    await settled(server);

    const other = { hub: "tiny/other" };
    const cases: [body: unknown, status: number, code: string, param: string | null][] = [
      [{}, 400, "invalid_request", "source"],
      [{ source: { hub: 5 } }, 400, "invalid_request", "source.hub"],
      [{ source: { hub: "a/b", url: "http://x" } }, 400, "invalid_request", "source"],
      [{ source: { hub: "../b" } }, 400, "invalid_request", "source.hub"],
      [{ source: { hub: "a/b", revision: "../x" } }, 400, "invalid_request", "source.revision"],
      [{ source: other, recipe: { rate: 2 } }, 400, "invalid_recipe", "recipe.rate"],
      [
        { source: other, recipe: { evaluate: { text: "/etc/passwd" } } },
        400,
        "invalid_recipe",
        "recipe.evaluate.text",
      ],
      [{ source: other, name: "../x" }, 400, "invalid_request", "name"],
      [{ source: other, name: "fake@0123456789ab" }, 400, "invalid_request", "name"],
    ];
    for (const [body, status, code, param] of cases) {
      const refused = await server.post("/v1/models", body);
      const { error } = await refused.json();
      assert.deepEqual([refused.status, error?.code, error?.param], [status, code, param], error?.message);
    }
    assert.deepEqual(leftovers(server), []);
  },
);

withServer("uploads that cannot become a model are refused and leave nothing", {
  limits: { uploadBytes: 100, uploadFiles: 3 },
}, async (server) => {
  const gguf = { "a.gguf": "x" };
  const cases: [FormData, status: number, code: string, param: string | null][] = [
    [form({}), 400, "invalid_request", "files"],
    [form({ "run.sh": "x" }), 400, "unsupported_format", "files"],
    [form({ "../../a.gguf": "x" }), 400, "unsupported_format", "files"],
    [form({ "config.json": "{}", "pytorch_model.bin": "x" }), 400, "unsupported_format", "files"],
    [form({ "config.json": "{}" }), 400, "invalid_request", "files"],
    [form({ "model.safetensors": "" }), 400, "invalid_request", "files"],
    [form({ ...gguf, "b.gguf": "x" }), 400, "invalid_request", "files"],
    [form({ ...gguf, "config.json": "x" }), 400, "invalid_request", "files"],
    [form({ ...gguf, "a.onnx": "x" }), 400, "invalid_request", "files"],
    [form({ "a.onnx.data": "x" }), 400, "invalid_request", "files"],
    [form(gguf, { recipe: "{" }), 400, "invalid_recipe", "recipe"],
    [form(gguf, { recipe: '{"rate": 2}' }), 400, "invalid_recipe", "recipe.rate"],
    [
      form(gguf, { recipe: '{"calibration": {"text": "/etc/passwd"}}' }),
      400,
      "invalid_recipe",
      "recipe.calibration.text",
    ],
    [
      form(gguf, { recipe: '{"evaluate": {"text": "../x.txt"}}' }),
      400,
      "invalid_recipe",
      "recipe.evaluate.text",
    ],
    [form(gguf, { name: "../x" }), 400, "invalid_request", "name"],
    [form(gguf, { name: "fake@0123456789ab" }), 400, "invalid_request", "name"],
    [form({ "a.gguf": "x".repeat(101) }), 413, "too_large", "files"],
    [form({ "a.txt": "x".repeat(60), "b.txt": "x".repeat(60) }), 413, "too_large", "files"],
    [
      form({ "a.safetensors": "x", "b.safetensors": "x", "c.safetensors": "x", "config.json": "{}" }),
      413,
      "too_large",
      "files",
    ],
  ];
  for (const [body, status, code, param] of cases) {
    const response = await upload(server, body);
    const { error } = await response.json();
    assert.deepEqual([response.status, error?.code, error?.param], [status, code, param], error?.message);
  }
  const wrongField = new FormData();
  wrongField.append("file", new Blob(["x"]), "a.gguf");
  assert.equal((await (await upload(server, wrongField)).json()).error.param, "files");
  const form415 = await server.get("/v1/models", { method: "POST", body: new URLSearchParams({ a: "b" }) });
  assert.deepEqual([form415.status, (await form415.json()).error.code], [415, "unsupported_media_type"]);
  const broken = await server.get("/v1/models", {
    method: "POST",
    headers: { "content-type": "multipart/form-data; boundary=b" },
    body: '--b\r\ncontent-disposition: form-data; name="files"; filename="a.gguf"\r\n\r\nabc',
  });
  assert.deepEqual([broken.status, (await broken.json()).error.code], [400, "invalid_request"]);
  for (
    const [disposition, code] of [['name="files"', "unsupported_format"], [
      'filename="a.gguf"',
      "invalid_request",
    ]]
  ) {
    const response = await server.get("/v1/models", {
      method: "POST",
      headers: { "content-type": "multipart/form-data; boundary=b" },
      body: `--b\r\ncontent-disposition: form-data; ${disposition}\r\n` +
        "content-type: application/octet-stream\r\n\r\nabc\r\n--b--\r\n",
    });
    const { error } = await response.json();
    assert.deepEqual([response.status, error.code, error.param], [400, code, "files"], error.message);
  }
  assert.deepEqual((await (await server.get("/v1/compressions")).json()).data, []);
  await settled(server);
});

withServer("a client that leaves its upload leaves nothing", {}, async (server) => {
  const { hostname, port } = new URL(server.url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const head =
    `POST /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 9999\r\n\r\n` +
    `--b\r\ncontent-disposition: form-data; name="files"; filename="a.gguf"\r\n\r\nabc`;
  await connection.write(new TextEncoder().encode(head));
  await until(() => leftovers(server).length === 1);
  connection.close();
  await settled(server);
});

const failing: FakeServerOptions["run"] = async (task) => {
  await Deno.mkdir(task.out);
  if (task.name === "odd") throw new TypeError("x is not a function");
  throw new OatmillError(
    "non_finite_weights",
    'Cannot use tensor "a" of "model.safetensors": value 3 is NaN',
  );
};
withServer(
  "a job that fails says why, leaves nothing, and the server serves on",
  { run: failing },
  async (server) => {
    for (const [name, code] of [["bad", "non_finite_weights"], ["odd", "internal_error"]]) {
      const { id } = await (await upload(server, form({ "a.gguf": "x" }, { name }))).json();
      const job = await finished(server, id);
      assert.deepEqual([job.status, job.error.code, job.result], ["failed", code, null]);
      assert.equal((await server.get(`/v1/models/${name}`)).status, 404);
    }
    await settled(server);
    assert.equal(
      (await server.post("/v1/completions", { model: "fake", prompt: "a", max_tokens: 1 })).status,
      200,
    );
    assert.match(
      await server.services.telemetry.metricsText(),
      /^oatmill_compressions_total\{state="failed".*\} 2$/m,
    );
  },
);

const endless: FakeServerOptions["run"] = async (_task, { signal, onProgress }) => {
  onProgress({ phase: "compress", done: 1, total: 10, error: 0.1 });
  await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  throw new Error("unreachable");
};
withServer(
  "jobs wait their turn and can be cancelled, waiting or running",
  { run: endless },
  async (server) => {
    const submit = async (name: string) =>
      await (await upload(server, form({ "a.gguf": "x" }, { name }))).json();
    const [first, second] = [await submit("one"), await submit("two")];
    const get = async (id: string) => await (await server.get(`/v1/compressions/${id}`)).json();
    assert.deepEqual([(await get(first.id)).status, (await get(second.id)).status], ["running", "queued"]);
    assert.deepEqual((await get(first.id)).progress, {
      ...{ phase: "compress", done: 1, total: 10, error: 0.1, block: 1, blocks: 10, loss: 0.1 },
      ...{ dense_perplexity: null, tokens_per_second: null, eta_seconds: null },
    });
    for (const { id } of [second, first]) {
      const job = await (await server.get(`/v1/compressions/${id}/cancel`, { method: "POST" })).json();
      assert.equal(job.status, "cancelled");
    }
    const again = await server.get(`/v1/compressions/${first.id}/cancel`, { method: "POST" });
    assert.equal(again.status, 409);
    const page = await (await server.get("/v1/compressions?limit=1")).json();
    assert.deepEqual([page.data[0].id, page.has_more], [second.id, true]);
    const next = await (await server.get(`/v1/compressions?limit=1&after=${second.id}`)).json();
    assert.deepEqual([next.data[0].id, next.has_more], [first.id, false]);
    const events = await (await server.get(`/v1/compressions/${first.id}/events`)).json();
    assert.deepEqual(events.data.map((e: Json) => e.data.state ?? e.data.progress.phase), [
      "queued",
      "running",
      "compress",
      "cancelled",
    ]);
    assert.equal((await server.get("/v1/compressions/none/events")).status, 404);
    assert.equal((await server.get("/v1/compressions?limit=x")).status, 400);
    assert.equal((await server.get("/v1/compressions?after=none")).status, 404);
    await settled(server);
  },
);

Deno.test("jobs under way when the server stops wait for its next start", async () => {
  await using server = await FakeServer.start({ run: endless });
  const submit = async (name: string) =>
    await (await upload(server, form({ "a.gguf": "x" }, { name }))).json();
  const ids = [(await submit("one")).id, (await submit("two")).id];
  await server.services.jobs.close();
  for (const id of ids) {
    const { state, error } = server.services.jobs.get(id);
    assert.deepEqual([state, error], ["queued", null]);
  }
  const late = await upload(server, form({ "a.gguf": "x" }, { name: "late" }));
  assert.deepEqual([late.status, late.headers.get("retry-after")], [503, "2"]);
  await late.body?.cancel();
  await settled(server);
});
