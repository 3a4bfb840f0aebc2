import assert from "node:assert/strict";
import { join } from "node:path";
import OpenAI from "openai";
import { fakeRun, type FakeServer, type FakeServerOptions } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import { withClient } from "../tests/with_client.ts";
import type { CompressTask } from "./compress_task.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const sha256Of = async (bytes: BufferSource) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
const put = async (client: OpenAI, name: string, text: string, purpose: string = "user_data") =>
  await client.files.create({ file: new File([text], name), purpose: purpose as OpenAI.FilePurpose }) as
    & OpenAI.FileObject
    & { readonly sha256: string };
const blobs = (server: FakeServer) => {
  const root = server.services.data.blobs;
  return [...Deno.readDirSync(root)].flatMap(({ name }) =>
    [...Deno.readDirSync(join(root, name))].map((e) => join(root, name, e.name))
  );
};
const leftovers = (server: FakeServer) =>
  [...Deno.readDirSync(join(server.services.data.root, "tmp"))].length;
const isError = (status: number, code: string) => (e: unknown) =>
  e instanceof OpenAI.APIError && e.status === status && e.code === code;

withClient("the official client stores, finds, reads and deletes files", {}, async (server, client) => {
  const text = "héllo\n".repeat(100_000); // several chunks
  const file = await put(client, "my notes.txt", text);
  const bytes = new TextEncoder().encode(text);
  assert.match(file.id, /^file-/);
  assert.deepEqual(
    [file.object, file.bytes, file.filename, file.purpose, file.status, file.sha256],
    ["file", bytes.length, "my notes.txt", "user_data", "processed", await sha256Of(bytes)],
  );
  assert.deepEqual(await client.files.retrieve(file.id), file);
  assert.deepEqual((await client.files.waitForProcessing(file.id)).id, file.id);
  assert.equal(await (await client.files.content(file.id)).text(), text);
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: "file", deleted: true });
  await assert.rejects(client.files.retrieve(file.id), isError(404, "not_found"));
  assert.deepEqual([blobs(server), leftovers(server)], [[], 0]);
});

withClient("files are listed by pages, in both orders and by purpose", {}, async (_server, client) => {
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) {
    ids.push((await put(client, `${i}.txt`, String(i), i % 2 ? "batch" : "user_data")).id);
  }
  const found = async (query: OpenAI.FileListParams) =>
    (await Array.fromAsync(client.files.list(query))).map(({ id }) => id);
  assert.deepEqual(await found({}), ids.toReversed());
  assert.deepEqual(await found({ limit: 2 }), ids.toReversed());
  assert.deepEqual(await found({ limit: 2, order: "asc" }), ids);
  assert.deepEqual(await found({ purpose: "batch", order: "asc" }), [ids[1], ids[3]]);
  const page = await client.files.list({ limit: 2, order: "asc", after: ids[3] });
  assert.deepEqual([page.data.map(({ id }) => id), page.has_more], [[ids[4]], false]);
  await assert.rejects(found({ after: "file-none" }), isError(404, "not_found"));
  await assert.rejects(found({ limit: 0 }), isError(400, "invalid_request"));
});

withClient("the same content is stored once and stays while a file has it", {}, async (server, client) => {
  const [a, b] = await Promise.all([put(client, "a.txt", "same"), put(client, "b.txt", "same")]);
  assert.equal(blobs(server).length, 1);
  await client.files.delete(a.id);
  assert.equal(await (await client.files.content(b.id)).text(), "same");
  await client.files.delete(b.id);
  assert.equal(blobs(server).length, 0);
});

withClient("a download gives ranges, and nothing to who has it", {}, async (server, client) => {
  const { id, sha256 } = await put(client, "q'ü.txt", "0123456789");
  const get = (headers: Record<string, string>, method = "GET") =>
    server.get(`/v1/files/${id}/content`, { headers, method });
  const part = await get({ range: "bytes=2-4" });
  assert.deepEqual([part.status, part.headers.get("content-range"), part.headers.get("content-length")], [
    206,
    "bytes 2-4/10",
    "3",
  ]);
  assert.equal(await part.text(), "234");
  assert.equal(part.headers.get("etag"), `"${sha256}"`);
  assert.equal(await (await get({ range: "bytes=-2", "if-range": `"${sha256}"` })).text(), "89");
  assert.equal(await (await get({ range: "bytes=-2", "if-range": '"old"' })).text(), "0123456789");
  const known = await get({ "if-none-match": `"${sha256}"` });
  assert.deepEqual([known.status, await known.text()], [304, ""]);
  const past = await get({ range: "bytes=10-" });
  assert.deepEqual([past.status, (await past.json()).error.code], [416, "range_not_satisfiable"]);
  const head = await get({}, "HEAD");
  assert.deepEqual([head.status, head.headers.get("content-length"), await head.text()], [200, "10", ""]);
  assert.equal(head.headers.get("content-disposition"), "attachment; filename*=UTF-8''q%27%C3%BC.txt");
});

withClient(
  "what is no file is refused and leaves nothing",
  { limits: { uploadBytes: 2 ** 20 } },
  async (server) => {
    const post = async (fields: Record<string, string | File>) => {
      const body = new FormData();
      for (const [name, value] of Object.entries(fields)) body.append(name, value);
      const response = await server.get("/v1/files", { method: "POST", body });
      return [response.status, (await response.json()).error.param];
    };
    const file = new File(["x"], "x.txt");
    assert.deepEqual(await post({ file, purpose: "none" }), [400, "purpose"]);
    assert.deepEqual(await post({ file }), [400, "purpose"]);
    assert.deepEqual(await post({ purpose: "batch" }), [400, "file"]);
    assert.deepEqual(await post({ purpose: "batch", other: file }), [400, "file"]);
    assert.deepEqual(await post({ purpose: "batch", file: new File(["x"], "n".repeat(256)) }), [400, "file"]);
    assert.deepEqual(await post({ purpose: "model", file: new File(["x"], "run.sh") }), [400, "files"]);
    assert.deepEqual(await post({ purpose: "model", file: new File(["x"], "model.bin") }), [400, "files"]);
    assert.deepEqual(
      await post({ purpose: "batch", "expires_after[anchor]": "created_at", file }),
      [400, "expires_after"],
    );
    const large = new File([new Uint8Array(2 ** 20 + 1)], "x.txt");
    assert.deepEqual(await post({ purpose: "batch", file: large }), [413, "file"]);
    assert.equal((await server.post("/v1/files", {})).status, 415);
    await until(() => leftovers(server) === 0);
    assert.deepEqual([blobs(server), (await (await server.get("/v1/files")).json()).data], [[], []]);
  },
);

withClient("a quota counts content once; what is deleted makes room", {
  limits: { storageBytes: 100 },
}, async (_server, client) => {
  const text = "a".repeat(60);
  const { id } = await put(client, "a.txt", text);
  await assert.rejects(put(client, "b.txt", "b".repeat(41)), isError(413, "storage_quota_exceeded"));
  await put(client, "c.txt", "c".repeat(40));
  await assert.rejects(put(client, "d.txt", "d"), isError(413, "storage_quota_exceeded"));
  await client.files.delete(id);
  await put(client, "b.txt", "b".repeat(60));
});

withClient(
  "damaged content is an error of its own, marks the file and is mended",
  {},
  async (server, client) => {
    const other = await put(client, "other.txt", "fine");
    const { id } = await put(client, "a.txt", "whole");
    const path = blobs(server).find((path) => Deno.readTextFileSync(path) === "whole")!;
    for (
      const damage of [
        () => Deno.writeTextFileSync(path, "wh0le"),
        () => Deno.writeTextFileSync(path, "w"),
        () => Deno.removeSync(path),
      ]
    ) {
      damage();
      await assert.rejects(client.files.content(id), isError(500, "damaged_file"));
      assert.equal((await client.files.retrieve(id)).status, "error");
    }
    assert.equal(await (await client.files.content(other.id)).text(), "fine");
    assert.ok(server.logs.some((line) => line.includes(id)));
    Deno.writeTextFileSync(path, "whole"); // the disk was mended
    assert.equal(await (await client.files.content(id)).text(), "whole");
    assert.equal((await client.files.retrieve(id)).status, "processed");
    Deno.writeTextFileSync(path, "again");
    await assert.rejects(client.files.content(id));
    await put(client, "b.txt", "whole"); // or the same content came again
    assert.equal((await client.files.retrieve(id)).status, "processed");
    assert.equal(await (await client.files.content(id)).text(), "whole");
  },
);

withClient("a client that leaves its upload leaves nothing", {}, async (server) => {
  const abort = new AbortController();
  const body = new ReadableStream({
    start(controller) {
      const head = '--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc';
      controller.enqueue(new TextEncoder().encode(head));
    },
  });
  const headers = { "content-type": "multipart/form-data; boundary=b" };
  const request = server.get("/v1/files", { method: "POST", headers, body, signal: abort.signal });
  await until(() => leftovers(server) === 1);
  abort.abort();
  await assert.rejects(request);
  await until(() => leftovers(server) === 0);
  assert.deepEqual(blobs(server), []);
});

let tasks: CompressTask[] = [];
const contents = new Map<string, string>();
const recordingRun: FakeServerOptions["run"] = async (task, options) => {
  tasks.push(task);
  const folder = task.source.endsWith(".gguf") ? join(task.source, "..") : task.source;
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (!isFile) continue;
    contents.set(name, await Deno.readTextFile(join(folder, name)));
    assert.equal((await Deno.stat(join(folder, name))).nlink, 2, "it is the blob itself");
  }
  return await fakeRun(task, options);
};
const finished = async (server: FakeServer, id: string): Promise<Json> => {
  let job: Json;
  await until(async () => {
    job = await (await server.get(`/v1/compressions/${id}`)).json();
    return ["succeeded", "failed"].includes(job.status);
  });
  return job;
};

withClient("stored files become a job, under their names and without a copy", {
  run: recordingRun,
}, async (server, client) => {
  tasks = [];
  const files = { "config.json": "{}", "model.safetensors": "weights", "a.txt": "evaluate" };
  const ids: string[] = [];
  for (const [name, text] of Object.entries(files)) ids.push((await put(client, name, text, "model")).id);
  const text = (await put(client, "my calibration.txt", "calibrate", "calibration")).id;
  const recipe = { calibration: { text }, evaluate: { text: ids[2] } };
  const response = await server.post("/v1/compressions", { name: "mine", files: ids, recipe });
  assert.equal(response.status, 202);
  const job = await response.json();
  assert.deepEqual([job.object, job.model, job.recipe.calibration.text], ["compression", "mine", text]);
  assert.deepEqual(job.files.map((f: Json) => [f.name, f.id]), [
    ...Object.keys(files).map((name, i) => [name, ids[i]]),
    ["my calibration.txt", text],
  ]);
  assert.equal((await finished(server, job.id)).status, "succeeded");
  assert.equal(tasks[0].recipe.calibration.text, join(tasks[0].source, `${text}.txt`));
  assert.equal(tasks[0].recipe.evaluate.text, join(tasks[0].source, "a.txt"));
  for (const [name, text] of Object.entries(files)) assert.equal(contents.get(name), text);
  assert.equal(contents.get(`${text}.txt`), "calibrate");
  await until(() => leftovers(server) === 0);
  assert.equal(blobs(server).length, 4);
});

withClient("one .gguf file names its model; what needs a file keeps it", {
  run: async (task, options) => {
    await release.promise;
    return await fakeRun(task, options);
  },
}, async (server, client) => {
  const { id } = await put(client, "tiny.gguf", "gguf!", "model");
  const job = await (await server.post("/v1/compressions", { files: [id], model: undefined })).json();
  assert.equal(job.model, "tiny");
  await assert.rejects(client.files.delete(id), isError(409, "conflict"));
  release.resolve();
  await finished(server, job.id);
  await client.files.delete(id);
});
const release = Promise.withResolvers<void>();

withClient(
  "a job of files that do not make a model is refused and leaves nothing",
  {},
  async (server, client) => {
    const model = (await put(client, "m.gguf", "gguf!", "model")).id;
    const sh = (await put(client, "run.sh", "sh")).id;
    const refused = async (body: unknown) => {
      const response = await server.post("/v1/compressions", body);
      const { error } = await response.json();
      return [response.status, error.code, error.param];
    };
    const none = `file-${"0".repeat(32)}`;
    assert.deepEqual(await refused({}), [400, "invalid_request", "files"]);
    assert.deepEqual(await refused("{"), [400, "invalid_request", null]);
    assert.deepEqual(await refused({ files: [] }), [400, "invalid_request", "files"]);
    assert.deepEqual(await refused({ files: [none] }), [404, "not_found", "files.0"]);
    assert.deepEqual(await refused({ files: [model, model] }), [400, "invalid_request", "files.1"]);
    assert.deepEqual(await refused({ files: [sh] }), [400, "unsupported_format", "files"]);
    assert.deepEqual(await refused({ files: [model], name: "../x" }), [400, "invalid_request", "name"]);
    assert.deepEqual(await refused({ files: [model], recipe: { rate: 2 } }), [
      400,
      "invalid_recipe",
      "recipe.rate",
    ]);
    const text = (text: string) => refused({ files: [model], recipe: { calibration: { text } } });
    assert.deepEqual(await text(none), [404, "not_found", "recipe.calibration.text"]);
    assert.deepEqual(await text(sh), [400, "invalid_request", "recipe.calibration.text"]);
    assert.deepEqual(await text("/etc/passwd"), [400, "invalid_recipe", "recipe.calibration.text"]);
    const [path] = blobs(server).filter((path) => Deno.readTextFileSync(path) === "gguf!");
    Deno.writeTextFileSync(path, "GGUF!");
    assert.deepEqual(await refused({ files: [model] }), [500, "damaged_file", "id"]);
    assert.equal(leftovers(server), 0);
    assert.deepEqual((await (await server.get("/v1/compressions")).json()).data, []);
  },
);

withClient(
  "a text named like the place of another one is refused, and both stay whole",
  {},
  async (server, client) => {
    const model = (await put(client, "m.gguf", "gguf!", "model")).id;
    const text = (await put(client, "calibration.txt", "calibrate", "calibration")).id;
    const namesake = (await put(client, `${text}.txt`, "another text", "calibration")).id;
    const body = { files: [model, namesake], recipe: { calibration: { text } } };
    const response = await server.post("/v1/compressions", body);
    assert.deepEqual([response.status, (await response.json()).error.param], [
      400,
      "recipe.calibration.text",
    ]);
    assert.equal(await (await client.files.content(namesake)).text(), "another text");
    assert.equal(await (await client.files.content(text)).text(), "calibrate");
    assert.equal(leftovers(server), 0);
  },
);

withClient("reading files needs a key's read, everything else admin", {}, async (server) => {
  const { key } = server.keys.add("reader", ["read"]);
  const headers = { authorization: `Bearer ${key}` };
  assert.equal((await server.get("/v1/files", { headers })).status, 200);
  for (const path of ["/v1/files", "/v1/uploads", "/v1/uploads/x/parts", "/v1/compressions"]) {
    const response = await server.post(path, {}, { headers });
    assert.deepEqual([response.status, (await response.json()).error.code], [403, "missing_scope"], path);
  }
});

withClient("a file beyond what any upload may have is too large, whatever the quota has left", {
  limits: { uploadBytes: 1000, storageBytes: 500 },
}, async (_server, client) => {
  await assert.rejects(put(client, "a.txt", "a".repeat(2 ** 21)), isError(413, "too_large"));
  await assert.rejects(put(client, "a.txt", "a".repeat(800)), isError(413, "storage_quota_exceeded"));
});
