/** Clients that leave or read slowly, on the real engine: by its counters, what they held is free and others go on. */
import assert from "node:assert/strict";
import type { EngineStats } from "../engine/types.ts";
import { FakeServer, readEvents } from "./fake_server.ts";
import { openChatting } from "./testing/chatting_model.ts";
import { until } from "./until.ts";

const BODY = { model: "fake", prompt: "Once upon a time", max_tokens: 400, temperature: 0, ignore_eos: true };
const CHAT = { ...BODY, messages: [{ role: "user", content: "Once" }] };

async function withModel(
  run: (server: FakeServer, stats: () => EngineStats) => Promise<void>,
): Promise<void> {
  await using server = await FakeServer.start({ open: () => openChatting() });
  const { registry } = server.services;
  using _lease = await registry.acquire("fake"); // it stays the same engine
  await run(server, () => registry.stats()[0].stats);
}
const free = (stats: EngineStats) => stats.running === 0 && stats.waiting === 0 && stats.kvBlocksUsed === 0;

/** One HTTP request over a connection of its own, which the caller closes. */
async function send(server: FakeServer, path: string, body: object): Promise<Deno.TcpConn> {
  const { hostname, port } = new URL(server.url);
  const text = JSON.stringify(body);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const head = `POST ${path} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-type: application/json\r\n`;
  await connection.write(
    new TextEncoder().encode(`${head}content-length: ${text.length}\r\n\r\n${text}`),
  );
  return connection;
}

Deno.test("a client that closes its connection frees what it held, long before its answer would have ended", async () => {
  await withModel(async (server, stats) => {
    const cases: [path: string, body: object, choices: number][] = [
      ["/v1/completions", BODY, 1],
      ["/v1/completions", { ...BODY, stream: true }, 1],
      ["/v1/completions", { ...BODY, n: 4 }, 4],
      ["/v1/completions", { ...BODY, n: 4, stream: true }, 4],
      ["/v1/completions", { ...BODY, n: 40 }, 40], // 16 run, the others wait
      ["/v1/chat/completions", CHAT, 1],
      ["/v1/chat/completions", { ...CHAT, stream: true }, 1],
      ["/v1/responses", { model: "fake", input: "Once", max_output_tokens: 400, ignore_eos: true }, 1],
    ];
    for (const [path, body, choices] of cases) {
      const before = stats().stepsTotal;
      const connection = await send(server, path, body);
      await until(() => stats().running + stats().waiting === choices && stats().stepsTotal > before + 2);
      connection.close();
      await until(() => free(stats()));
      const steps = stats().stepsTotal - before;
      assert.ok(steps < 300, `${path} ${JSON.stringify(body)}: ${steps} steps`);
    }
  });
});

Deno.test("a reader who takes nothing keeps no KV block and nobody waiting, and finds its answer whole", async () => {
  await withModel(async (server, stats) => {
    const slow = await send(server, "/v1/completions", { ...BODY, n: 16, logprobs: 5, stream: true });
    await until(() => stats().running === 16);
    const other = await readEvents(await server.post("/v1/completions", { ...BODY, stream: true }));
    assert.equal(other.at(-1), "[DONE]");
    await until(() => free(stats()));
    let text = "";
    const decoder = new TextDecoder();
    for (const chunk = new Uint8Array(65536); !text.endsWith("0\r\n\r\n");) {
      const bytes = await slow.read(chunk);
      assert.ok(bytes !== null, "the answer is cut");
      text += decoder.decode(chunk.subarray(0, bytes), { stream: true });
    }
    assert.match(text.slice(-100), /data: \[DONE\]/);
    assert.equal(text.match(/"finish_reason":"length"/g)?.length, 16);
    slow.close();
  });
});
