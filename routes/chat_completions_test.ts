import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { FakeServer, type FakeServerOptions, readEvents } from "../tests/fake_server.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const BODY = { model: "fake", messages: [{ role: "user", content: "hi" }], temperature: 0 };
const post = async (server: FakeServer, body: object = {}): Promise<Json> =>
  await (await server.post("/v1/chat/completions", { ...BODY, ...body })).json();
const withServer = (name: string, options: FakeServerOptions, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start(options);
    await run(server);
  });

withServer("chat completions answer as a message", { engine: { script: "hello" } }, async (server) => {
  const { object, choices, usage, id } = await post(server);
  assert.equal(object, "chat.completion");
  assert.match(id, /^chatcmpl-/);
  assert.deepEqual(choices, [{
    index: 0,
    message: { role: "assistant", content: "hello", refusal: null },
    logprobs: null,
    finish_reason: "stop",
  }]);
  assert.equal(usage.completion_tokens, 5);
  const prompt = new TextDecoder().decode(Uint8Array.from(server.engines[0].requests[0].promptIds));
  assert.equal(prompt, "user: hi\nassistant:");
});

withServer("chat streams begin with the role, end with the reason, then [DONE]", {
  engine: { script: "día" },
}, async (server) => {
  const response = await server.post("/v1/chat/completions", {
    ...BODY,
    stream: true,
    stream_options: { include_usage: true },
  });
  const events = await readEvents(response) as Json[];
  assert.equal(events.pop(), "[DONE]");
  const usage = events.pop();
  assert.deepEqual([usage.choices, usage.usage.completion_tokens], [[], 4]);
  assert.ok(
    events.every((e) => e.object === "chat.completion.chunk" && e.usage === null && e.id === usage.id),
  );
  const choices = events.map((e) => e.choices[0]);
  assert.deepEqual(choices[0].delta, { role: "assistant", content: "" });
  assert.deepEqual([choices.at(-1).delta, choices.at(-1).finish_reason], [{}, "stop"]);
  assert.ok(choices.slice(0, -1).every((c) => c.finish_reason === null));
  assert.equal(choices.map((c) => c.delta.content ?? "").join(""), "día");
});

withServer("chat takes text parts, developer messages, n and max_completion_tokens", {}, async (server) => {
  const messages = [
    { role: "developer", content: "be brief" },
    { role: "user", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] },
  ];
  const { choices } = await post(server, {
    messages,
    n: 2,
    max_tokens: 9,
    max_completion_tokens: 2,
    seed: 0,
  });
  assert.deepEqual(choices.map((c: Json) => c.message.content), ["ab", "bc"]);
  const prompt = new TextDecoder().decode(Uint8Array.from(server.engines[0].requests[0].promptIds));
  assert.equal(prompt, "system: be brief\nuser: ab\nassistant:");
});

withServer("chat without a limit may fill the context", { engine: { contextLength: 64 } }, async (server) => {
  const { choices, usage } = await post(server);
  assert.equal(usage.total_tokens, 64);
  assert.equal(choices[0].finish_reason, "length");
});

withServer(
  "chat logprobs hold tokens, bytes and alternatives",
  { engine: { script: "é" } },
  async (server) => {
    const { choices: [{ logprobs }] } = await post(server, { logprobs: true, top_logprobs: 2 });
    assert.equal(logprobs.refusal, null);
    assert.equal(logprobs.content.length, 2);
    assert.deepEqual(logprobs.content[0].bytes, [0xc3]);
    assert.deepEqual(logprobs.content[0].top_logprobs.map((t: Json) => t.logprob), [-0.5, -1.5]);
  },
);

withServer("chat refuses what it cannot do", {}, async (server) => {
  const cases: [body: object, param: string][] = [
    [{ messages: [] }, "messages"],
    [{ messages: [{ role: "king", content: "x" }] }, "messages.0.role"],
    [{ messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages.0.content.0.type"],
    [{ response_format: { type: "xml" } }, "response_format.type"],
    [{ response_format: { type: "json_schema" } }, "response_format.json_schema"],
    [{ tools: [{ type: "function" }] }, "tools.0.function"],
    [{ top_logprobs: 2 }, "top_logprobs"],
    [{ logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    [{ stream_options: {} }, "stream_options"],
  ];
  for (const [body, param] of cases) {
    const { error } = await post(server, body);
    assert.deepEqual([error?.param, error?.code], [param, "invalid_request"], JSON.stringify(body));
  }
  assert.ok(
    (await post(server, { response_format: { type: "text" }, tools: [], tool_choice: "none" })).choices,
  );
  const { error } = await post(server, { messages: [{ role: "user", content: "a".repeat(600) }] });
  assert.deepEqual([error.param, error.code], ["messages", "context_length_exceeded"]);
});

const noTemplate = {
  hasChatTemplate: false,
  renderChat: () => {
    throw new OatmillError("invalid_chat_template", "The model has no chat template");
  },
};
withServer("chat with a model without a chat template is 400", { tokenizer: noTemplate }, async (server) => {
  const response = await server.post("/v1/chat/completions", BODY);
  assert.equal(response.status, 400);
  assert.equal((await response.json()).error.code, "invalid_chat_template");
});
