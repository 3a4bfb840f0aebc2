import assert from "node:assert/strict";
import { FakeServer } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

const BODY = { model: "fake", prompt: "a secret", max_tokens: 4 };

Deno.test("each request has one line, with what became of it and without its text", async () => {
  await using server = await FakeServer.start({ engine: { script: "an answer", tokenDelayMs: 1 } });
  const lines = () => server.logs.map((l) => JSON.parse(l)).filter((l) => l.message === "request");
  const cases: [send: () => Promise<unknown>, expected: object][] = [
    [async () => await (await server.post("/v1/completions", BODY)).text(), {
      level: "info",
      method: "POST",
      route: "/v1/completions",
      status: 200,
      model: "fake",
      prompt_tokens: 9,
      completion_tokens: 4,
      error: undefined,
    }],
    [async () => await (await server.post("/v1/completions", { ...BODY, stream: true })).text(), {
      status: 200,
      completion_tokens: 4,
      error: undefined,
    }],
    [async () => await (await server.post("/v1/completions", { ...BODY, model: "none" })).text(), {
      level: "warn",
      status: 404,
      error: "model_not_found",
    }],
    [async () => await (await server.get("/v1/compressions/cmp-none")).text(), {
      route: "/v1/compressions/:id",
      status: 404,
      error: "not_found",
    }],
    [async () => {
      const stream = await server.post("/v1/completions", { ...BODY, max_tokens: 400, stream: true });
      await stream.body!.cancel();
    }, { status: 200, error: "client_left" }],
  ];
  for (const [i, [send, expected]] of cases.entries()) {
    await (await server.get("/healthz")).text();
    await send();
    await until(() => lines().length > i);
    const line = lines()[i];
    for (const [key, value] of Object.entries(expected)) assert.equal(line[key], value, `${i}: ${key}`);
    assert.ok(line.request_id && line.seconds >= 0);
  }
  assert.equal(lines().length, cases.length);
  assert.doesNotMatch(server.logs.join("\n"), /a secret|an answer/);
});
