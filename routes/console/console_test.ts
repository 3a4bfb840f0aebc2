import assert from "node:assert/strict";
import { FakeServer } from "../../tests/fake_server.ts";
import { sourceHash } from "./build.ts";

const FILES = ["/", "/console/icon.svg", "/console/console.css", "/console/console.js"];
const MAX_ZIPPED_BYTES = 150_000;

Deno.test("the console's files come zipped, in less than 150 KB, and once", async () => {
  await using server = await FakeServer.start();
  const { hostname, port } = new URL(server.url);
  let bytes = 0;
  for (const path of FILES) {
    const headers = { "accept-encoding": "gzip" };
    const response = await server.get(path, { headers });
    const etag = response.headers.get("etag")!, { length } = await response.text();
    assert.equal(response.status, 200);
    const again = await server.get(path, { headers: { ...headers, "if-none-match": etag } });
    assert.deepEqual([again.status, await again.text()], [304, ""]);
    const policy = "content-security-policy";
    assert.equal(again.headers.get(policy), response.headers.get(policy), "a page keeps what it had");
    const zipped = await contentLength({ hostname, port: Number(port), path, encoding: "gzip" });
    assert.ok(zipped > 0 && zipped < length, `${path}: ${zipped} of ${length} bytes`);
    bytes += zipped;
    const plain = await server.get(path, {
      headers: { "accept-encoding": "gzip;q=0", "if-none-match": etag },
    });
    assert.equal(plain.status, 200, "another encoding is another file");
    assert.equal(plain.headers.get("content-encoding"), null);
    await plain.body?.cancel();
  }
  assert.ok(bytes < MAX_ZIPPED_BYTES, `${bytes} bytes`);
});

/** Of what goes over the wire: fetch unpacks it and forgets. */
async function contentLength(
  { hostname, port, path, encoding }: { hostname: string; port: number; path: string; encoding: string },
): Promise<number> {
  using connection = await Deno.connect({ hostname, port });
  const request =
    `GET ${path} HTTP/1.1\r\nhost: ${hostname}\r\naccept-encoding: ${encoding}\r\nconnection: close\r\n\r\n`;
  await connection.write(new TextEncoder().encode(request));
  const answer = await new Response(connection.readable).text();
  assert.match(answer, /content-encoding: gzip/i);
  return Number(/content-length: (\d+)/i.exec(answer)?.[1]);
}

Deno.test("the console runs its own files alone and is open to everybody, its data is not", async () => {
  await using server = await FakeServer.start({ apiKeys: ["key-of-the-operator"] });
  for (const path of FILES) {
    const response = await server.get(path);
    const policy = response.headers.get("content-security-policy")!;
    assert.equal(response.status, 200);
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe|\*|http/);
    const text = await response.text();
    if (path === "/") assert.doesNotMatch(text, /<script(?! type="module" src="\/)|<style|\son\w+=|style=/);
  }
  const { status, body } = await server.get("/v1/status");
  await body?.cancel();
  assert.equal(status, 401);
});

Deno.test("the console's generated files are made from the present sources", async () => {
  const hash = await sourceHash();
  for (const name of ["console.js", "console.css"]) {
    const text = await Deno.readTextFile(new URL(`gen/${name}`, import.meta.url));
    assert.ok(
      text.startsWith("/* Auto-generated file.") && text.slice(0, 300).includes(hash),
      `${name}: run "deno task console"`,
    );
  }
});
