import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { FakeServer } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

const BODY = { model: "fake", prompt: "x", max_tokens: 2 };
const ORIGIN = "https://chat.example.org";

Deno.test("answers, streams, refusals and files carry security headers and the request's id", async () => {
  await using server = await FakeServer.start();
  const answers: [path: string, init: RequestInit, status: number][] = [
    ["/healthz", {}, 200],
    ["/healthz", { method: "HEAD" }, 200],
    ["/v1/nothing", {}, 404],
    ["/v1/models/fake/files/oatmill.json", {}, 200],
    ["/v1/completions", { method: "POST", body: JSON.stringify({ ...BODY, stream: true }) }, 200],
    ["/v1/completions", { method: "POST", body: "{" }, 400],
  ];
  for (const [path, init, status] of answers) {
    const headers = { "content-type": "application/json", "x-request-id": "req_1-2=" };
    const response = await server.get(path, { ...init, headers });
    await response.body?.cancel();
    const of = (name: string) => response.headers.get(name);
    assert.equal(response.status, status, path);
    assert.equal(of("x-request-id"), "req_1-2=", path);
    assert.equal(of("x-content-type-options"), "nosniff", path);
    assert.equal(of("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", path);
    assert.deepEqual([of("x-frame-options"), of("referrer-policy")], ["DENY", "no-referrer"], path);
    assert.equal(of("access-control-allow-origin"), null, path);
  }
});

Deno.test("/docs may run its own script and style, and nothing else", async () => {
  await using server = await FakeServer.start();
  const response = await server.get("/docs");
  const page = await response.text(), policy = response.headers.get("content-security-policy")!;
  assert.match(policy, /^default-src 'none'; /);
  for (const element of ["script", "style"]) {
    const text = page.slice(
      page.indexOf(">", page.indexOf(`<${element}`)) + 1,
      page.indexOf(`</${element}>`),
    );
    const hash = createHash("sha256").update(text).digest("base64");
    assert.ok(policy.includes(`${element}-src 'sha256-${hash}'`), element);
  }
});

Deno.test("an id that is no id is replaced; the id of a request stands in its log lines", async () => {
  await using server = await FakeServer.start();
  for (const id of ["a b", 'a"}', "x".repeat(129), ""]) {
    const response = await server.get("/healthz", { headers: { "x-request-id": id } });
    await response.body?.cancel();
    assert.match(response.headers.get("x-request-id")!, /^[0-9a-f-]{36}$/, id);
  }
  for (const stream of [false, true]) {
    const headers = { "content-type": "application/json", "x-request-id": `stream-${stream}` };
    await (await server.post("/v1/completions", { ...BODY, stream }, { headers })).text();
    const lines = () => server.logs.map((l) => JSON.parse(l)).filter((l) => l.message === "request");
    await until(() => lines().at(-1)?.request_id === `stream-${stream}`);
    const line = lines().at(-1);
    assert.ok(!("prompt" in line));
  }
});

Deno.test("pages of allowed origins may call, also with a key; those of others may not", async () => {
  await using server = await FakeServer.start({
    corsOrigins: [ORIGIN],
    apiKeys: ["a-key-of-the-environment"],
  });
  const preflight = async (origin: string) => {
    const headers = {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization, content-type",
    };
    const response = await server.get("/v1/completions", { method: "OPTIONS", headers });
    await response.body?.cancel();
    return response;
  };
  const allowed = await preflight(ORIGIN);
  assert.deepEqual([allowed.status, allowed.headers.get("access-control-allow-origin")], [204, ORIGIN]);
  assert.match(allowed.headers.get("access-control-allow-headers")!, /authorization/);
  const other = await preflight("https://other.example");
  assert.equal(other.headers.get("access-control-allow-origin"), null);
  // A page must be able to read why it was refused.
  const refused = await server.post("/v1/completions", BODY, { headers: { origin: ORIGIN } });
  await refused.body?.cancel();
  assert.deepEqual([refused.status, refused.headers.get("access-control-allow-origin")], [401, ORIGIN]);
  assert.match(refused.headers.get("access-control-expose-headers")!, /x-ratelimit-remaining-tokens/);
});
