import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import { FakeServer } from "../../tests/fake_server.ts";
import { until } from "../../tests/until.ts";
import { RateLimiter } from "../rate_limits.ts";

// deno-lint-ignore no-explicit-any -- bodies as clients see them
type Json = any;

const ask = (server: FakeServer, body: object, init?: RequestInit) =>
  server.post("/v1/responses", { model: "fake", input: "Hi", ...body }, init);
const answer = async (server: FakeServer, body: object): Promise<Json> =>
  await (await ask(server, body)).json();

/** Events of a stream; each one's `event:` line is its type. */
async function eventsOf(response: Response): Promise<Json[]> {
  return (await response.text()).split("\n\n").filter(Boolean).map((block) => {
    const [, type, data] = /^event: (.+)\ndata: (.+)$/.exec(block)!;
    const event = JSON.parse(data);
    assert.equal(event.type, type);
    return event;
  });
}
/** What the model was asked, as text. */
const promptOf = (server: FakeServer) =>
  new TextDecoder().decode(Uint8Array.from(server.engines[0].requests.at(-1)!.promptIds));

describe("POST /v1/responses", () => {
  it("answers with every field of a response", async () => {
    await using server = await FakeServer.start({ engine: { script: "Ä 🌾" } });
    const { id, created_at, completed_at, output, ...rest } = await answer(server, {
      metadata: { a: "b" },
      user: "me",
      instructions: "Be brief",
      temperature: 0,
    });
    assert.match(id, /^resp_[0-9a-f]{32}$/);
    assert.ok(created_at > 1.7e9 && completed_at >= created_at);
    const [{ id: itemId, ...item }] = output;
    assert.match(itemId, /^msg_[0-9a-f]{32}$/);
    assert.deepEqual(item, {
      type: "message",
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text: "Ä 🌾", annotations: [], logprobs: [] }],
    });
    assert.deepEqual(rest, {
      object: "response",
      status: "completed",
      error: null,
      incomplete_details: null,
      model: "fake",
      instructions: "Be brief",
      max_output_tokens: null,
      parallel_tool_calls: true,
      previous_response_id: null,
      background: false,
      reasoning: { effort: null, summary: null },
      store: false,
      temperature: 0,
      top_p: 1,
      top_logprobs: 0,
      text: { format: { type: "text" } },
      tool_choice: "auto",
      tools: [],
      truncation: "disabled",
      usage: {
        input_tokens: 36,
        input_tokens_details: { cached_tokens: 1, cache_write_tokens: 0 },
        output_tokens: 7,
        output_tokens_details: { reasoning_tokens: 0 },
        total_tokens: 43,
      },
      user: "me",
      metadata: { a: "b" },
    });
    assert.equal(promptOf(server), "system: Be brief\nuser: Hi\nassistant:");
  });

  it("is incomplete where the limit ended it", async () => {
    await using server = await FakeServer.start();
    const { status, incomplete_details, completed_at, output, usage } = await answer(server, {
      max_output_tokens: 3,
    });
    assert.deepEqual(
      [status, incomplete_details, completed_at, output[0].status, usage.output_tokens],
      ["incomplete", { reason: "max_output_tokens" }, null, "incomplete", 3],
    );
  });

  it("reads messages, parts and its own output", async () => {
    await using server = await FakeServer.start({ engine: { script: "No" } });
    const { output } = await answer(server, {});
    await ask(server, {
      input: [
        { role: "developer", content: "Rules" },
        {
          type: "message",
          role: "user",
          content: [{ type: "input_text", text: "A" }, { type: "input_text", text: "B" }],
        },
        ...output,
        { role: "assistant", content: [{ type: "refusal", refusal: "Never" }] },
        { role: "user", content: "Why?" },
      ],
    });
    assert.equal(
      promptOf(server),
      "system: Rules\nuser: AB\nassistant: No\nassistant: Never\nuser: Why?\nassistant:",
    );
  });

  it("streams numbered events in order, whose deltas join to the text", async () => {
    await using server = await FakeServer.start({ engine: { script: "Ä 🌾!" } });
    const events = await eventsOf(await ask(server, { stream: true }));
    assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i));
    const types = events.map((e) => e.type.replace("response.", ""));
    assert.deepEqual(types.filter((t, i) => t !== types[i - 1]), [
      "created",
      "in_progress",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "completed",
    ]);
    const deltas = events.filter((e) => e.delta !== undefined);
    assert.deepEqual(deltas.map((e) => e.delta), ["Ä", " ", "🌾", "!"]);
    const { response } = events.at(-1), { response: created } = events[0];
    assert.equal(response.output[0].content[0].text, "Ä 🌾!");
    assert.deepEqual([created.status, created.output, created.usage], ["in_progress", [], null]);
    assert.deepEqual([created.id, created.created_at], [response.id, response.created_at]);
    assert.ok(deltas.every((e) => e.item_id === response.output[0].id));
    assert.deepEqual(events.at(-2).item, response.output[0]);
  });

  it("gives log-probabilities when asked, whole and streamed", async () => {
    await using server = await FakeServer.start({ engine: { script: "ab" } });
    const body = { top_logprobs: 2, include: ["message.output_text.logprobs"] };
    const { output: [{ content: [{ logprobs }] }] } = await answer(server, body);
    assert.deepEqual(logprobs[0], {
      token: "a",
      logprob: -0.5,
      bytes: [97],
      top_logprobs: [{ token: "a", logprob: -0.5, bytes: [97] }, { token: "b", logprob: -1.5, bytes: [98] }],
    });
    const events = await eventsOf(await ask(server, { ...body, stream: true }));
    assert.deepEqual(events.flatMap((e) => e.delta !== undefined ? e.logprobs : []), logprobs);
  });

  it("says in the stream why a response failed", async () => {
    await using server = await FakeServer.start({ engine: { failAfter: 3 } });
    const events = await eventsOf(await ask(server, { stream: true }));
    const [failed, error] = events.slice(-2);
    assert.equal(failed.type, "response.failed");
    assert.deepEqual(failed.response.error, { code: "server_error", message: "The engine is closed" });
    assert.deepEqual([failed.response.status, failed.response.output[0].status], ["failed", "incomplete"]);
    assert.deepEqual([error.type, error.code, error.param], ["error", "unavailable", null]);
    assert.equal((await ask(server, {})).status, 503);
  });

  it("stops when the client leaves, at the first event too", async () => {
    await using server = await FakeServer.start({ engine: { tokenDelayMs: 1 } });
    for (const reads of [1, 6]) {
      const reader = (await ask(server, { stream: true })).body!.getReader();
      for (let i = 0; i < reads; i++) await reader.read();
      await reader.cancel();
      await until(() => server.engines[0].running === 0);
    }
    await until(() => server.logs.filter((line) => line.includes("client_left")).length === 2);
  });

  it("drops the oldest messages where truncation is auto, and refuses them where it is not", async () => {
    await using server = await FakeServer.start({ engine: { contextLength: 80, script: "ok" } });
    const turn = (n: number) => [
      { role: "user", content: `question ${n}` },
      { role: "assistant", content: `answer ${n}` },
    ];
    const input = [...turn(1), ...turn(2), ...turn(3), { role: "user", content: "last" }];
    const refused = await ask(server, { input });
    assert.equal(refused.status, 400);
    assert.equal((await refused.json()).error.code, "context_length_exceeded");
    const body = { instructions: "S", truncation: "auto", max_output_tokens: 4 };
    const { status, usage } = await answer(server, { input, ...body });
    assert.equal(status, "completed");
    assert.ok(usage.input_tokens <= 76);
    assert.equal(
      promptOf(server),
      "system: S\nuser: question 3\nassistant: answer 3\nuser: last\nassistant:",
    );
    const long = await ask(server, { input: "x".repeat(100), ...body });
    assert.equal((await long.json()).error.code, "context_length_exceeded");
  });

  it("refuses what it does not do, and names the field", async () => {
    await using server = await FakeServer.start();
    const image = [{ role: "user", content: [{ type: "input_image", image_url: "data:," }] }];
    const cases: [body: object, param: string][] = [
      [{ store: true }, "store"],
      [{ previous_response_id: "resp_1" }, "previous_response_id"],
      [{ conversation: "conv_1" }, "conversation"],
      [{ prompt: { id: "pmpt_1" } }, "prompt"],
      [{ background: true }, "background"],
      [{ tools: [{ type: "web_search" }] }, "tools.0.type"],
      [{ tools: [{ type: "function", name: "f" }, { type: "function", name: "f" }] }, "tools"],
      [
        { tools: [{ type: "function", name: "f", parameters: { type: "string" } }] },
        "tools.0.parameters.type",
      ],
      [{ tools: [{ type: "function", name: "f" }] }, "tools"], // the fake model's template knows none
      [
        { input: [{ type: "function_call", call_id: "c", name: "f", arguments: "[]" }] },
        "input.0.arguments",
      ],
      [{ tool_choice: "required" }, "tool_choice"],
      [{ input: image }, "input.0.content.0.type"],
      [{ input: [{ type: "item_reference", id: "msg_1" }] }, "input.0.type"],
      [{ input: [] }, "input"],
      [{ input: undefined }, "input"],
      [{ input: [{ role: "tool", content: "x" }] }, "input.0.role"],
      [{ max_output_tokens: 0 }, "max_output_tokens"],
      [{ temperature: "hot" }, "temperature"],
      [{ top_logprobs: 21 }, "top_logprobs"],
      [{ truncation: "some" }, "truncation"],
      [{ metadata: { a: 1 } }, "metadata.a"],
      [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, ""])) }, "metadata"],
      [{ text: { format: { type: "xml" } } }, "text.format.type"],
      [{ text: { format: { type: "json_schema", name: "x", schema: 5 } } }, "text.format.schema"],
      [
        {
          text: {
            format: {
              type: "json_schema",
              name: "x",
              schema: { type: "integer", multipleOf: 5 },
              strict: true,
            },
          },
        },
        "text.format.schema",
      ],
    ];
    for (const [body, param] of cases) {
      const response = await ask(server, body);
      const { error } = await response.json();
      assert.ok(error, `${param} was taken`);
      assert.deepEqual(
        [response.status, error.type, error.param],
        [400, "invalid_request_error", param],
        error.message,
      );
    }
    const fine = {
      store: false,
      previous_response_id: null,
      tools: [],
      tool_choice: "none",
      background: false,
    };
    assert.equal((await ask(server, { ...fine, max_output_tokens: 1 })).status, 200);
    assert.equal((await server.get("/v1/responses/resp_1")).status, 404);
  });

  it("counts as other generations: rate limits, a key's scope, metrics", async () => {
    const rates = new RateLimiter({ requestsPerMinute: 1, tokensPerMinute: 1000 });
    await using server = await FakeServer.start({ rates, engine: { script: "four" } });
    const first = await ask(server, {});
    assert.equal(first.headers.get("x-ratelimit-remaining-requests"), "0");
    assert.equal((await first.json()).usage.total_tokens, 23);
    const second = await ask(server, {});
    assert.equal(second.status, 429);
    assert.ok(Number(second.headers.get("retry-after")) > 0);
    const metrics = await (await server.get("/metrics")).text();
    assert.match(metrics, /gen_ai_server_request_duration_count\{[^}]*gen_ai_operation_name="chat"/);
  });

  it("needs the scope infer", async () => {
    await using server = await FakeServer.start();
    const { key } = server.keys.add("reader", ["read"]);
    const response = await ask(server, {}, { headers: { authorization: `Bearer ${key}` } });
    assert.deepEqual([response.status, (await response.json()).error.code], [403, "missing_scope"]);
  });
});
