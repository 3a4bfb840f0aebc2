import assert from "node:assert/strict";
import fc from "fast-check";
import OpenAI from "openai";
import { FakeServer } from "../tests/fake_server.ts";
import { parseKeys } from "./api_keys.ts";
import { isLoopback, refuseOpenServer } from "./loopback.ts";
import { mayUse, scopeOf, SCOPES } from "./scopes.ts";

const KEY = "a-key-of-the-environment";
const clientOf = ({ url }: FakeServer, apiKey: string) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const complete = (client: OpenAI) => client.completions.create({ model: "fake", prompt: "x", max_tokens: 2 });

Deno.test("without keys every route answers; the first key closes all but a few, the last one's end opens none", async () => {
  await using server = await FakeServer.start();
  const status = async (path: string) => {
    const response = await server.get(path);
    await response.body?.cancel();
    return response.status;
  };
  const open = ["/healthz", "/readyz", "/docs", "/openapi.json"], closed = ["/v1/models", "/metrics"];
  for (const path of [...open, ...closed]) assert.equal(await status(path), 200, path);
  const { id } = server.keys.add("first", ["read"]);
  for (const path of open) assert.equal(await status(path), 200, path);
  for (const path of [...closed, "/v1/nothing"]) assert.equal(await status(path), 401, path);
  assert.ok(server.keys.revoke(id));
  assert.equal(await status("/v1/models"), 401);
});

Deno.test("a key does what its scopes say, and the client gets the error's class", async () => {
  await using server = await FakeServer.start({ apiKeys: [KEY] });
  const client = (scopes: string[]) => clientOf(server, server.keys.add("test", scopes).key);
  const [read, infer, admin] = [client(["read"]), client(["infer"]), client(["admin"])];
  assert.equal((await read.models.list()).data[0].id, "fake");
  assert.equal((await complete(infer)).choices.length, 1);
  const refused = (e: unknown) => e instanceof OpenAI.PermissionDeniedError && e.code === "missing_scope";
  await assert.rejects(complete(read), refused);
  await assert.rejects(async () => await infer.models.list(), refused);
  await assert.rejects(read.models.delete("fake"), refused);
  await complete(clientOf(server, KEY));
  assert.equal((await admin.models.delete("fake")).deleted, true);
  assert.equal(server.keys.list()[0].lastUsedDay, new Date().toISOString().slice(0, 10));
});

Deno.test("a missing, misspelt or revoked key is 401 in OpenAI's shape, before the body is looked at", async () => {
  await using server = await FakeServer.start({ apiKeys: [KEY] });
  const { key, id } = server.keys.add("test", ["admin"]);
  const wrong = (e: unknown) => e instanceof OpenAI.AuthenticationError && e.code === "invalid_api_key";
  await complete(clientOf(server, key));
  for (const other of ["none", KEY + "x", KEY.slice(1), key.slice(0, -1), key.replace(id, "0".repeat(12))]) {
    await assert.rejects(complete(clientOf(server, other)), wrong, other);
  }
  server.keys.revoke(id);
  await assert.rejects(complete(clientOf(server, key)), wrong);
  for (const authorization of [undefined, "", "Bearer", `Basic ${KEY}`, `Bearer ${KEY} x`]) {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const response = await server.post("/v1/completions", "{", { headers });
    assert.deepEqual([response.status, response.headers.get("www-authenticate")], [401, "Bearer"]);
    const { error } = await response.json();
    assert.deepEqual([error.type, error.param, error.code], [
      "authentication_error",
      null,
      "invalid_api_key",
    ]);
    assert.ok(!error.message.includes(KEY));
  }
});

Deno.test("no key or hash stands in a log, and no key in the database", async () => {
  await using server = await FakeServer.start({ apiKeys: [KEY] });
  const { key } = server.keys.add("test", ["infer"]);
  await complete(clientOf(server, key));
  await assert.rejects(complete(clientOf(server, KEY + "x")));
  assert.ok(!server.logs.join().includes(key) && !server.logs.join().includes(KEY));
  const { root } = server.services.data;
  for (const { name } of Deno.readDirSync(root)) {
    if (!name.startsWith("oatmill.db")) continue;
    assert.ok(!(await Deno.readTextFile(`${root}/${name}`)).includes(key.slice(-43)), name);
  }
});

Deno.test("scopes: what no table names is not open, and admin may do everything", () => {
  const method = fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "__proto__");
  fc.assert(fc.property(method, fc.string(), (verb, path) => {
    const scope = scopeOf(verb, `/v1/models${path}`);
    assert.equal(scope, verb === "GET" || verb === "HEAD" ? "read" : "admin");
  }));
  for (const scope of SCOPES) assert.ok(mayUse(["admin"], scope) && mayUse([scope], scope));
  assert.ok(!mayUse(["read", "infer"], "admin") && !mayUse(["read"], "infer") && !mayUse(["infer"], "read"));
});

Deno.test("OATMILL_API_KEYS: several keys, none, and one that is refused by its place", () => {
  assert.deepEqual(parseKeys(undefined), []);
  assert.deepEqual(parseKeys(" , "), []);
  assert.deepEqual(parseKeys(`${KEY}, ${KEY}2`), [KEY, `${KEY}2`]);
  for (const bad of ["secret", "a key with some spaces"]) {
    assert.throws(
      () => parseKeys(`${KEY},${bad}`),
      (e: Error) => /Key 2 of OATMILL_API_KEYS/.test(e.message) && !e.message.includes(bad),
    );
  }
});

Deno.test("a server without keys listens on loopback, elsewhere only when told to", () => {
  for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) {
    assert.ok(isLoopback(host), host);
    refuseOpenServer(host, { keys: false, allowAnonymous: false });
  }
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.org", "example.org"]) {
    const refused = { code: "invalid_request", message: /OATMILL_API_KEYS.*keys add.*--allow-anonymous/ };
    assert.throws(() => refuseOpenServer(host, { keys: false, allowAnonymous: false }), refused);
    refuseOpenServer(host, { keys: true, allowAnonymous: false });
    refuseOpenServer(host, { keys: false, allowAnonymous: true });
  }
});
