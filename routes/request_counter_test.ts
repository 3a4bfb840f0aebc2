import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";

Deno.test("requests are counted by route and status, whatever they asked for", async () => {
  await using server = await FakeServer.start();
  const send = async (path: string, init?: RequestInit) =>
    await (await server.get(path, init)).body?.cancel();
  await send("/healthz");
  await send("/healthz");
  await send("/v1/models/none-such");
  await send("/v1/models/another");
  await send("/made/up/path");
  await send("/v1/completions", {
    method: "POST",
    body: "{",
    headers: { "content-type": "application/json" },
  });
  const text = await (await server.get("/metrics")).text();
  const counts = text.split("\n").flatMap((line) => {
    const label = (name: string) => new RegExp(`${name}="([^"]*)"`).exec(line)?.[1];
    if (!line.startsWith("oatmill_http_requests_total{")) return [];
    const what = ["http_request_method", "http_route", "http_response_status_code"].map(label);
    return [`${what.join(" ")}: ${line.split(" ").at(-1)}`];
  });
  assert.deepEqual(counts.sort(), [
    "GET /* 404: 1",
    "GET /healthz 200: 2",
    "GET /v1/models/:id 404: 2",
    "POST /v1/completions 400: 1",
  ]);
});
