import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import fc from "fast-check";
import OpenAI from "openai";
import type { FakeServer } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import { withClient } from "../tests/with_client.ts";
import { UPLOAD_IDLE_MS } from "../store/upload_storage.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const begin = (client: OpenAI, bytes: number, filename = "a.txt") =>
  client.uploads.create({ filename, bytes, mime_type: "text/plain", purpose: "user_data" });
const addPart = (client: OpenAI, id: string, data: string | Uint8Array<ArrayBuffer>) =>
  client.uploads.parts.create(id, { data: new File([data], "part") });
const isError = (status: number, code: string, message = /./) => (e: unknown) =>
  e instanceof OpenAI.APIError && e.status === status && e.code === code && message.test(e.message);
const shown = async (server: FakeServer, id: string): Promise<Json> =>
  await (await server.get(`/v1/uploads/${id}`)).json();
const uploadFolders = (server: FakeServer) => [...Deno.readDirSync(server.services.data.uploads)].length;
const leftovers = (server: FakeServer) =>
  [...Deno.readDirSync(join(server.services.data.root, "tmp"))].length;

withClient(
  "the official client uploads in parts, in its own order, with a checksum",
  {},
  async (server, client) => {
    const upload = await begin(client, 9);
    assert.match(upload.id, /^upload_/);
    assert.deepEqual(
      [upload.object, upload.status, upload.bytes, upload.filename, upload.purpose, upload.file],
      ["upload", "pending", 9, "a.txt", "user_data", null],
    );
    assert.ok(Math.abs(upload.expires_at - upload.created_at - 3600) <= 1);
    const [c, a, b] = await Promise.all(
      ["ghi", "abc", "def"].map((text) => addPart(client, upload.id, text)),
    );
    assert.deepEqual([a.object, a.upload_id], ["upload.part", upload.id]);
    const stored = (await shown(server, upload.id)).parts;
    assert.deepEqual(stored.map((p: Json) => p.id).sort(), [a.id, b.id, c.id].sort());
    assert.deepEqual(stored.map((p: Json) => p.bytes), [3, 3, 3]);
    const part_ids = [a.id, b.id, c.id];
    const wrong = { part_ids, md5: "0".repeat(32) };
    await assert.rejects(client.uploads.complete(upload.id, wrong), isError(400, "invalid_request", /md5/));
    const md5 = createHash("md5").update("abcdefghi").digest("hex").toUpperCase();
    const done = await client.uploads.complete(upload.id, { part_ids, md5 });
    assert.deepEqual([done.status, done.file!.bytes, done.file!.filename], ["completed", 9, "a.txt"]);
    assert.equal(await (await client.files.content(done.file!.id)).text(), "abcdefghi");
    assert.deepEqual((await shown(server, upload.id)).parts, []);
    assert.deepEqual([uploadFolders(server), leftovers(server)], [0, 0]);
  },
);

withClient(
  "completing again gives the same file; another order is a conflict",
  {},
  async (_server, client) => {
    const { id } = await begin(client, 4);
    const parts = [await addPart(client, id, "ab"), await addPart(client, id, "cd")].map((part) => part.id);
    const completions = await Promise.all(
      [1, 2, 3].map(() => client.uploads.complete(id, { part_ids: parts })),
    );
    completions.push(await client.uploads.complete(id, { part_ids: parts }));
    assert.equal(new Set(completions.map(({ file }) => file!.id)).size, 1);
    const other = client.uploads.complete(id, { part_ids: parts.toReversed() });
    await assert.rejects(other, isError(409, "conflict", /completed/));
    await assert.rejects(addPart(client, id, "ef"), isError(409, "conflict", /completed/));
    await assert.rejects(client.uploads.cancel(id), isError(409, "conflict", /completed/));
    assert.equal((await Array.fromAsync(client.files.list())).length, 1);
  },
);

withClient("a cancelled upload drops its parts and takes no more", {}, async (server, client) => {
  const { id } = await begin(client, 4);
  const part = await addPart(client, id, "ab");
  assert.equal((await client.uploads.cancel(id)).status, "cancelled");
  assert.equal(uploadFolders(server), 0);
  await assert.rejects(addPart(client, id, "cd"), isError(409, "conflict", /cancelled/));
  await assert.rejects(client.uploads.complete(id, { part_ids: [part.id] }), isError(409, "conflict"));
  await assert.rejects(client.uploads.cancel("upload_none"), isError(404, "not_found"));
});

withClient("parts must be of the upload and add up to its bytes", {}, async (_server, client) => {
  const { id } = await begin(client, 4);
  const other = await begin(client, 4);
  const strange = await addPart(client, other.id, "zz");
  const part = await addPart(client, id, "abc");
  const complete = (part_ids: string[], more = {}) => client.uploads.complete(id, { part_ids, ...more });
  await assert.rejects(complete([part.id]), isError(400, "invalid_request", /3 bytes.*4/));
  await assert.rejects(complete([part.id, strange.id]), isError(400, "invalid_request", /no part/));
  await assert.rejects(complete([]), isError(400, "invalid_request"));
  await assert.rejects(complete([part.id], { md5: "x" }), isError(400, "invalid_request", /hexadecimal/));
  await assert.rejects(addPart(client, id, "de"), isError(400, "invalid_request", /3 of the 4/));
  const last = await addPart(client, id, "d");
  const sha256 = createHash("sha256").update("dabc").digest("hex");
  await assert.rejects(complete([part.id, last.id], { sha256 }), isError(400, "invalid_request", /sha256/));
  assert.equal((await complete([last.id, part.id], { sha256 })).status, "completed");
});

withClient("the same bytes again are the same part, also twice in one file", {}, async (server, client) => {
  const { id } = await begin(client, 4);
  const parts = await Promise.all([1, 2, 3].map(() => addPart(client, id, "ab")));
  assert.equal(new Set(parts.map((part) => part.id)).size, 1);
  assert.equal((await shown(server, id)).parts.length, 1);
  const part_ids = [parts[0].id, parts[1].id];
  const { file } = await client.uploads.complete(id, { part_ids });
  assert.equal(await (await client.files.content(file!.id)).text(), "abab");
});

withClient("an upload is refused that cannot end well", {
  limits: { uploadBytes: 1000, storageBytes: 100 },
}, async (server, client) => {
  await assert.rejects(begin(client, 1001), isError(413, "too_large"));
  await assert.rejects(begin(client, 0), isError(400, "invalid_request"));
  await assert.rejects(begin(client, 101), isError(413, "storage_quota_exceeded"));
  const { id } = await begin(client, 60);
  await assert.rejects(begin(client, 41), isError(413, "storage_quota_exceeded", /60 of the 100/));
  await client.uploads.cancel(id);
  await begin(client, 41);
  const refused = async (body: unknown) => {
    const { error } = await (await server.post("/v1/uploads", body)).json();
    return error.param;
  };
  const body = { filename: "a.txt", bytes: 1, mime_type: "text/plain", purpose: "user_data" };
  assert.equal(await refused({ ...body, filename: "" }), "filename");
  assert.equal(await refused({ ...body, purpose: "model", filename: "model.bin" }), "files");
  assert.equal(
    await refused({ ...body, expires_after: { anchor: "created_at", seconds: 3600 } }),
    "expires_after",
  );
  assert.equal(await refused({ ...body, mime_type: undefined }), "mime_type");
});

withClient("a part is at most 64 MiB", {}, async (server, client) => {
  const { id } = await begin(client, 2 ** 28);
  const part = new Uint8Array(64 * 2 ** 20 + 1);
  await assert.rejects(addPart(client, id, part), isError(413, "too_large", /67108864/));
  const whole = await addPart(client, id, part.subarray(1));
  assert.equal((whole as Json).bytes, 64 * 2 ** 20);
  assert.equal((await shown(server, id)).parts.length, 1);
});

const clock = { ms: 0 };
withClient("an upload expires an hour after its last part, whatever the wall clock says", {
  monotonicMs: () => clock.ms,
}, async (server, client) => {
  const { id } = await begin(client, 4);
  clock.ms += UPLOAD_IDLE_MS - 1;
  await addPart(client, id, "ab");
  clock.ms += UPLOAD_IDLE_MS - 1;
  const { expires_at, status } = await shown(server, id);
  assert.equal(status, "pending");
  assert.ok(expires_at <= Date.now() / 1000 + 1);
  clock.ms += 1;
  await assert.rejects(addPart(client, id, "cd"), isError(409, "conflict", /expired/));
  assert.equal((await shown(server, id)).status, "expired");
  assert.equal(uploadFolders(server), 0);
});

withClient(
  "a part whose connection drops leaves nothing, and the rest goes on",
  {},
  async (server, client) => {
    const { id } = await begin(client, 6);
    const first = await addPart(client, id, "abc");
    const { hostname, port } = new URL(server.url);
    const socket = await Deno.connect({ hostname, port: Number(port) });
    const head = [
      `POST /v1/uploads/${id}/parts HTTP/1.1`,
      `host: ${hostname}:${port}`,
      "content-type: multipart/form-data; boundary=b",
      "content-length: 1000",
      "",
      '--b\r\ncontent-disposition: form-data; name="data"; filename="a"\r\n\r\nde',
    ].join("\r\n");
    await socket.write(new TextEncoder().encode(head));
    await until(() => leftovers(server) === 1);
    socket.close();
    await until(() => leftovers(server) === 0);
    const { parts } = await shown(server, id);
    assert.deepEqual(parts.map((part: Json) => part.id), [first.id]);
    const last = await addPart(client, id, "def");
    const { file } = await client.uploads.complete(id, { part_ids: [first.id, last.id] });
    assert.equal(await (await client.files.content(file!.id)).text(), "abcdef");
  },
);

withClient("a damaged part is dropped and can be sent again", {}, async (server, client) => {
  const { id } = await begin(client, 4);
  const [a, b] = [await addPart(client, id, "ab"), await addPart(client, id, "cd")];
  Deno.writeTextFileSync(join(server.services.data.uploads, id, a.id), "xx");
  const complete = (ids: string[]) => client.uploads.complete(id, { part_ids: ids });
  await assert.rejects(complete([a.id, b.id]), isError(500, "damaged_file"));
  assert.deepEqual((await shown(server, id)).parts.map((p: Json) => p.id), [b.id]);
  const again = await addPart(client, id, "ab");
  assert.equal((await complete([again.id, b.id])).status, "completed");
});

withClient("two uploads of the same content at once are one blob", {}, async (server, client) => {
  const content = new Uint8Array(300_000).map((_, i) => i % 251);
  const ids = await Promise.all([100_000, 70_000].map(async (step) => {
    const { id } = await begin(client, content.length);
    const starts = Array.from({ length: Math.ceil(content.length / step) }, (_, i) => i * step);
    const parts = await Promise.all(starts.map((at) => addPart(client, id, content.slice(at, at + step))));
    const { file } = await client.uploads.complete(id, { part_ids: parts.map((part) => part.id) });
    return file!.id;
  }));
  const files = await Promise.all(ids.map((id) => client.files.retrieve(id)));
  assert.equal(new Set(files.map((file) => (file as Json).sha256)).size, 1);
  assert.equal([...Deno.readDirSync(server.services.data.blobs)].length, 1);
});

withClient("parts of any sizes, stored in any order, make the file", {}, async (server, client) => {
  const cut = fc.record({
    bytes: fc.uint8Array({ minLength: 1, maxLength: 2000 }),
    cuts: fc.array(fc.nat(), { maxLength: 8 }),
    seed: fc.array(fc.nat(), { minLength: 9, maxLength: 9 }),
    together: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(cut, async ({ bytes, cuts, seed, together }) => {
      const at = [0, ...cuts.map((c) => c % bytes.length), bytes.length].sort((a, b) => a - b);
      const pieces = at.slice(1).map((end, i) => Uint8Array.from(bytes.subarray(at[i], end)));
      const { id } = await begin(client, bytes.length);
      const order = pieces.map((_, i) => i).sort((a, b) => seed[a] - seed[b]);
      const parts: string[] = [];
      const send = async (i: number) => parts[i] = (await addPart(client, id, pieces[i])).id;
      if (together) await Promise.all(order.map(send));
      else for (const i of order) await send(i);
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      const response = await server.post(`/v1/uploads/${id}/complete`, { part_ids: parts, sha256 });
      const { file } = await response.json();
      const content = await (await client.files.content(file.id)).arrayBuffer();
      assert.deepEqual(new Uint8Array(content), Uint8Array.from(bytes));
    }),
    { numRuns: 30, seed: 7 },
  );
});
