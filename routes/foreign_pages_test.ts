import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";

const ORIGIN = "https://chat.example.org";

/** Of a request under a name that fetch() would look up. */
async function statusAs(host: string, { url }: FakeServer, path = "/v1/models"): Promise<number> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(new URL(url).port) });
  const request = `GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(request));
  const answer = await new Response(connection.readable).text();
  return Number(/^HTTP\/1\.1 (\d+)/.exec(answer)![1]);
}
async function upload(server: FakeServer, headers: Record<string, string>) {
  const body = new FormData();
  body.append("note", "no file");
  const response = await server.get("/v1/models", { method: "POST", body, headers });
  return { status: response.status, code: (await response.json()).error.code };
}

Deno.test("without keys, forms of other sites' pages are refused; own pages, allowed ones and programs are not", async () => {
  await using server = await FakeServer.start({ corsOrigins: [ORIGIN] });
  for (const origin of ["https://other.example", "null", "http://127.0.0.1:1", `${ORIGIN}.evil.example`]) {
    assert.deepEqual(await upload(server, { origin }), { status: 403, code: "foreign_origin" }, origin);
  }
  for (const origin of [server.url, ORIGIN]) {
    assert.equal((await upload(server, { origin })).status, 400, origin);
  }
  assert.equal((await upload(server, {})).status, 400);
});

Deno.test("with keys, the key decides, whatever page sends it", async () => {
  await using server = await FakeServer.start({ apiKeys: ["a-key-of-the-environment"] });
  const authorization = "Bearer a-key-of-the-environment", origin = "https://other.example";
  assert.equal((await upload(server, { authorization, origin })).status, 400);
  assert.equal((await upload(server, { origin })).status, 401);
  const response = await server.get("/v1/models", { headers: { authorization } });
  await response.body?.cancel();
  assert.equal(response.status, 200);
});

Deno.test("without keys, names that others can point here are refused, unless a proxy answers for them", async () => {
  await using server = await FakeServer.start();
  for (
    const host of ["127.0.0.1:8000", "localhost", "LOCALHOST:80", "app.localhost", "[::1]:8000", "10.0.0.7"]
  ) {
    assert.equal(await statusAs(host, server), 200, host);
  }
  for (
    const host of ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "notlocalhost"]
  ) {
    assert.equal(await statusAs(host, server), 403, host);
    assert.equal(await statusAs(host, server, "/healthz"), 200, host);
  }
  await using behindProxy = await FakeServer.start({ allowAnonymous: true });
  assert.equal(await statusAs("chat.example.org", behindProxy), 200);
});
