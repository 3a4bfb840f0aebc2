import assert from "node:assert/strict";
import type { EncoderModel } from "../models/classifier.ts";
import { FakeServer } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";

const encoder = new TextEncoder();
const limits = { beginAfterMs: 250 };

/** Sends head and body in packets of their own, as clients do. */
async function ask(server: FakeServer, path: string, body: object): Promise<Deno.TcpConn> {
  const { hostname, port } = new URL(server.url);
  const text = JSON.stringify({ model: "fake", ...body });
  const connection = await Deno.connect({ hostname, port: Number(port) });
  connection.setNoDelay(true);
  const head = ["POST " + path + " HTTP/1.1", `host: ${hostname}:${port}`, "content-type: application/json"];
  await connection.write(encoder.encode([...head, `content-length: ${text.length}`, "", ""].join("\r\n")));
  await new Promise((done) => setTimeout(done, 5));
  await connection.write(encoder.encode(text));
  return connection;
}

for (
  const [path, body] of [
    ["/v1/completions", { prompt: "x", max_tokens: 400 }],
    ["/v1/chat/completions", { messages: [{ role: "user", content: "x" }], max_tokens: 400 }],
    ["/v1/responses", { input: "x", max_output_tokens: 400 }],
  ] as const
) {
  Deno.test(`a whole answer of ${path} is not made for a client that left`, async () => {
    await using server = await FakeServer.start({ engine: { tokenDelayMs: 20 }, limits });
    for (const leaveAfterTokens of [3, 20]) {
      const connection = await ask(server, path, body);
      await until(() => server.engines[0]?.running === 1);
      const [engine] = server.engines;
      await new Promise((done) => setTimeout(done, leaveAfterTokens * 20));
      connection.close();
      await until(() => engine.running === 0);
      assert.equal(engine.finished, 0);
    }
  });
}

for (const path of ["/v1/embeddings", "/v1/classify"]) {
  Deno.test(`an encoder stops for a client of ${path} that left`, async () => {
    const left = Promise.withResolvers<void>();
    let running = 0;
    const run: EncoderModel["run"] = (_input, signal) => {
      running++;
      return new Promise((_, reject) =>
        signal!.addEventListener("abort", () => {
          left.resolve();
          reject(signal!.reason);
        })
      );
    };
    const encoder: EncoderModel = { reads: "text", labels: ["a", "b"], imageProcessor: null, run };
    await using server = await FakeServer.start({ encoder, limits });
    const connection = await ask(server, path, { input: ["x", "y"] });
    await until(() => running === 2);
    await new Promise((done) => setTimeout(done, 2 * limits.beginAfterMs));
    connection.close();
    await left.promise;
  });
}

Deno.test("a long answer is whole, and one that fails late breaks its connection", async () => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 20 }, limits });
  const answer = await server.post("/v1/completions", {
    model: "fake",
    prompt: "x",
    max_tokens: 30,
    seed: 0,
  });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-length"), null); // it began before it was there
  assert.equal((await answer.json()).choices[0].text.length, 30);

  await using other = await FakeServer.start({ engine: { tokenDelayMs: 20, failAfter: 25 }, limits });
  const broken = await other.post("/v1/completions", { model: "fake", prompt: "x", max_tokens: 30 });
  await assert.rejects(broken.text());
});
