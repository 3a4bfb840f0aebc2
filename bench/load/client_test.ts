import assert from "node:assert/strict";
import fc from "fast-check";
import { apiUrl, exchange, type LoadRequest, type Target } from "./client.ts";
import {
  event,
  finishEvent,
  type ScriptedAnswer,
  ScriptedServer,
  textEvent,
  usageEvent,
  wholeAnswer,
} from "./testing/scripted_server.ts";

const REQUEST: LoadRequest = { prompt: "Hello", outputTokens: 4 };

async function ask(answer: ScriptedAnswer, target: Partial<Target> = {}, signal?: AbortSignal) {
  await using server = new ScriptedServer(() => answer);
  const all = {
    baseUrl: server.url,
    endpoint: "completions",
    model: "stub",
    timeoutMs: 20_000,
    ...target,
  } as const;
  return { ...await exchange(all, REQUEST, signal), body: server.bodies[0], headers: server.headers[0] };
}

Deno.test("tokens, pieces and gaps are those of the stream", async () => {
  const result = await ask({
    pieces: [
      textEvent("a"),
      250,
      textEvent("b"),
      250,
      textEvent("c"),
      finishEvent,
      usageEvent(7, 5),
      event("[DONE]"),
    ],
  });
  assert.equal(result.error, null);
  assert.deepEqual([result.inputTokens, result.outputTokens, result.counted, result.chunks], [
    7,
    5,
    "usage",
    3,
  ]);
  assert.equal(result.gapsMs.length, 2);
  assert.ok(result.gapsMs.every((gap) => gap > 50), `${result.gapsMs}`);
  assert.ok(result.sentMs < result.firstMs! && result.firstMs! + 100 < result.endMs);
});

Deno.test("what a server had in its cache is known", async () => {
  const usage = { prompt_tokens: 9, completion_tokens: 1, prompt_tokens_details: { cached_tokens: 4 } };
  const { inputTokens, cachedTokens } = await ask({
    pieces: [textEvent("a"), finishEvent, event({ choices: [], usage })],
  });
  assert.deepEqual([inputTokens, cachedTokens], [9, 4]);
});

Deno.test("without usage the pieces are counted, and the result says so", async () => {
  const { outputTokens, counted, inputTokens } = await ask({
    pieces: [textEvent("a"), textEvent(""), textEvent("b"), finishEvent, event("[DONE]")],
  });
  assert.deepEqual([outputTokens, counted, inputTokens], [2, "chunks", null]);
});

Deno.test("counts do not depend on where the network cuts the stream", async () => {
  const text = Array.from({ length: 12 }, (_, i) => textEvent(`é${i}😀`)).join("") + finishEvent +
    usageEvent(3, 12) + event("[DONE]");
  const bytes = new TextEncoder().encode(text);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: bytes.length }), { maxLength: 20 }), async (borders) => {
      const cuts = [0, ...borders.sort((a, b) => a - b), bytes.length];
      const pieces = cuts.slice(1).map((c, i) => bytes.subarray(cuts[i], c)).filter((p) => p.length > 0);
      const { error, outputTokens, chunks, gapsMs } = await ask({ pieces });
      assert.deepEqual([error, outputTokens, chunks, gapsMs.length], [null, 12, 12, 11]);
    }),
    { numRuns: 20 },
  );
});

Deno.test("chat: the role's piece is no token, reasoning and tool calls are", async () => {
  const delta = (d: object, finish_reason: string | null = null) =>
    event({ choices: [{ delta: d, finish_reason }] });
  const { chunks, gapsMs, body, headers } = await ask({
    pieces: [
      delta({ role: "assistant", content: "" }),
      delta({ reasoning_content: "hm" }),
      delta({ content: "x" }),
      delta({ tool_calls: [{ index: 0 }] }),
      delta({}, "tool_calls"),
    ],
  }, { endpoint: "chat", apiKey: "sk-1", body: { temperature: 0, stream_options: null } });
  assert.deepEqual([chunks, gapsMs.length], [3, 2]);
  assert.equal(headers.get("authorization"), "Bearer sk-1");
  assert.deepEqual(body, {
    model: "stub",
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 4,
    stream: true,
    temperature: 0,
  });
});

Deno.test("what goes wrong has a kind and never throws", async () => {
  const cases: [kind: string, answer: ScriptedAnswer][] = [
    ["http_429", { status: 429, pieces: ['{"error":{"message":"The queue is full"}}'] }],
    ["http_500", { status: 500, pieces: ["oops"] }],
    ["not_a_stream", { contentType: "application/json", pieces: ["{}"] }],
    ["malformed", { pieces: ["data: {oops\n\n", finishEvent] }],
    ["malformed", { pieces: ["data: 7\n\n", finishEvent] }],
    ["stream_error", { pieces: [textEvent("a"), event({ error: { message: "broke" } }), event("[DONE]")] }],
    ["truncated", { pieces: [textEvent("a")] }],
    ["connection", { pieces: [textEvent("a")], breakOff: true }],
  ];
  for (const [kind, answer] of cases) {
    const { error } = await ask(answer);
    assert.equal(error?.kind, kind, String(error?.message));
  }
  assert.equal((await ask(cases[0][1])).error?.message, "The queue is full");
  const nobody = { baseUrl: "http://127.0.0.1:1/v1", endpoint: "chat", model: "x", timeoutMs: 5000 } as const;
  assert.equal((await exchange(nobody, REQUEST)).error?.kind, "connection");
});

Deno.test("a timeout is an error, the caller's end is none of the server's", async () => {
  const hang = Promise.withResolvers<void>();
  const late = ask({ pieces: [textEvent("a"), hang.promise] }, { timeoutMs: 600 });
  const abort = new AbortController();
  const left = ask({ pieces: [textEvent("a"), hang.promise] }, {}, abort.signal);
  setTimeout(() => abort.abort(), 600);
  setTimeout(() => hang.resolve(), 1000);
  assert.equal((await late).error?.kind, "timeout");
  assert.deepEqual([(await left).error?.kind, (await left).chunks], ["cancelled", 1]);
  assert.equal((await ask(wholeAnswer(2), {}, AbortSignal.abort())).error?.kind, "cancelled");
});

Deno.test("an answer that is empty from its beginning is timed by its end", async () => {
  const { error, firstMs, outputTokens } = await ask({ pieces: [finishEvent, usageEvent(3, 0)] });
  assert.ok(error === null && firstMs !== null && outputTokens === 0);
});

Deno.test("apiUrl() adds /v1 where there is no path", () => {
  assert.equal(apiUrl("http://127.0.0.1:8000"), "http://127.0.0.1:8000/v1");
  assert.equal(apiUrl("https://x.example/api/v1/"), "https://x.example/api/v1");
  assert.equal(apiUrl("ftp://x"), null);
  assert.equal(apiUrl("x"), null);
});
