import assert from "node:assert/strict";
import fc from "fast-check";
import type { ChatMessage } from "../models/tokenizer.ts";
import { TOOL_SYNTAXES } from "../models/tools/syntax.ts";
import { FakeServer, type FakeServerOptions, readEvents } from "../tests/fake_server.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const syntax = (name: string) => TOOL_SYNTAXES.find((s) => s.name === name)!;
const tool = (name: string, more: object = {}) => ({ type: "function", function: { name, ...more } });
const WEATHER = tool("get_weather", {
  description: "Weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
});
const TOOLS = [WEATHER, tool("stop")];
const BODY = { model: "fake", messages: [{ role: "user", content: "hi" }], temperature: 0, tools: TOOLS };
const PARIS = '{"city": "Paris"}';
const call = (name: string, args: string) =>
  `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`;

/** What the template was given. */
let rendered: { messages: ChatMessage[]; tools: unknown } | null = null;
const knowing = (name: string): FakeServerOptions["tokenizer"] => ({
  toolSupport: syntax(name),
  renderChat: (messages, o) => {
    rendered = { messages, tools: o?.tools ?? null };
    return "prompt";
  },
});
const post = (server: FakeServer, body: object = {}): Promise<Response> =>
  server.post("/v1/chat/completions", { ...BODY, ...body });
const answer = async (server: FakeServer, body: object = {}): Promise<Json> =>
  await (await post(server, body)).json();
const withAnswer = (name: string, script: string, run: (server: FakeServer) => Promise<void>) =>
  Deno.test(name, async () => {
    await using server = await FakeServer.start({ engine: { script }, tokenizer: knowing("hermes") });
    await run(server);
  });

withAnswer(
  "calls are in the message, with ids of their own, and the reason is tool_calls",
  `I look.\n${call("get_weather", PARIS)}\n${call("stop", "{}")}`,
  async (server) => {
    const { choices: [choice] } = await answer(server);
    const [first, second] = choice.message.tool_calls;
    assert.deepEqual(choice.message, {
      role: "assistant",
      content: "I look.",
      refusal: null,
      tool_calls: [
        { id: first.id, type: "function", function: { name: "get_weather", arguments: PARIS } },
        { id: second.id, type: "function", function: { name: "stop", arguments: "{}" } },
      ],
    });
    assert.match(first.id, /^call_[0-9a-f]{24}$/);
    assert.notEqual(first.id, second.id);
    assert.equal(choice.finish_reason, "tool_calls");
    assert.deepEqual(rendered!.tools, [
      WEATHER,
      tool("stop", { parameters: { type: "object", properties: {} } }),
    ]);
    const one = await answer(server, { parallel_tool_calls: false });
    assert.equal(one.choices[0].message.tool_calls.length, 1);
  },
);

withAnswer(
  "calls alone leave no content, and a limit is the reason",
  call("stop", '{"a": "b"}'),
  async (server) => {
    const { choices: [whole] } = await answer(server);
    assert.equal(whole.message.content, null);
    const { choices: [cut] } = await answer(server, { max_tokens: 48 });
    assert.deepEqual([cut.message.tool_calls[0].function.arguments, cut.finish_reason], ['{"a": ', "length"]);
  },
);

withAnswer(
  "nothing is called with tool_choice none, and the template hears of no tools",
  call("stop", "{}"),
  async (server) => {
    for (const body of [{ tool_choice: "none" }, { tools: [] }, { tools: null }]) {
      const { choices: [{ message, finish_reason }] } = await answer(server, body);
      assert.deepEqual([message.content, message.tool_calls], [call("stop", "{}"), undefined]);
      assert.equal(finish_reason, "stop");
      assert.equal(rendered!.tools, null);
    }
  },
);

withAnswer(
  "a named call is of that tool alone",
  call("stop", "{}") + call("get_weather", PARIS),
  async (server) => {
    const tool_choice = { type: "function", function: { name: "get_weather" } };
    const { choices: [{ message }] } = await answer(server, { tool_choice });
    assert.deepEqual(message.tool_calls.map((c: Json) => c.function.name), ["get_weather"]);
    assert.equal(message.content, call("stop", "{}"));
    assert.equal((rendered!.tools as unknown[]).length, 2);
  },
);

withAnswer("what a conversation called comes back to the template as objects", "Fine.", async (server) => {
  const tool_calls = [{
    id: "call_1",
    type: "function",
    function: { name: "get_weather", arguments: PARIS },
  }];
  const messages = [
    { role: "user", content: "Weather?" },
    { role: "assistant", content: null, tool_calls },
    { role: "tool", tool_call_id: "call_1", content: [{ type: "text", text: "7 °C" }] },
  ];
  const { choices: [{ message, finish_reason }] } = await answer(server, { messages });
  assert.deepEqual([message.content, finish_reason], ["Fine.", "stop"]);
  const called = { ...tool_calls[0], function: { name: "get_weather", arguments: { city: "Paris" } } };
  assert.deepEqual(rendered!.messages, [
    messages[0],
    { role: "assistant", content: "", tool_calls: [called] },
    { role: "tool", content: "7 °C", tool_call_id: "call_1" },
  ]);
});

Deno.test("streams say the same as whole answers, argument by argument, in every syntax", async () => {
  const texts: Readonly<Record<string, string>> = {
    hermes: `Well.\n${call("get_weather", '{"city": "Köln 🌧"}')}\n${call("stop", "{}")} Done.`,
    mistral:
      `[TOOL_CALLS][{"name": "get_weather", "arguments": ${PARIS}}, {"name": "stop", "arguments": {}}]`,
    llama3: `{"name": "get_weather", "parameters": ${PARIS}}`,
  };
  for (const [name, script] of Object.entries(texts)) {
    await using server = await FakeServer.start({ engine: { script }, tokenizer: knowing(name) });
    const { choices: [{ message, finish_reason, logprobs }] } = await answer(server, { logprobs: true });
    const events = await readEvents(await post(server, { stream: true, logprobs: true })) as Json[];
    assert.equal(events.pop(), "[DONE]");
    const deltas = events.map((e) => e.choices[0].delta);
    assert.deepEqual(deltas[0], { role: "assistant", content: "" });
    assert.equal(deltas.map((d) => d.content ?? "").join(""), message.content ?? "");
    const pieces = deltas.flatMap((d) => d.tool_calls ?? []);
    message.tool_calls.forEach((whole: Json, index: number) => {
      const [first, ...others] = pieces.filter((p) => p.index === index);
      assert.deepEqual([first.type, first.function.name], ["function", whole.function.name]);
      assert.match(first.id, name === "mistral" ? /^[a-z0-9]{9}$/ : /^call_/);
      assert.ok(others.every((p) => p.id === undefined && p.function.name === undefined));
      assert.equal([first, ...others].map((p) => p.function.arguments).join(""), whole.function.arguments);
    });
    assert.ok(pieces.length > message.tool_calls.length, "arguments come in pieces");
    assert.equal(events.at(-1).choices[0].finish_reason, finish_reason);
    assert.equal(finish_reason, "tool_calls");
    const values = events.flatMap((e) => e.choices[0].logprobs?.content ?? []);
    assert.deepEqual(values, logprobs.content);
  }
});

Deno.test("streams join to the whole answer, whatever the model writes", async () => {
  const pieces = [
    "<tool_call>",
    "</tool_call>",
    '{"name": "stop", ',
    '"arguments": ',
    "{}",
    '{"a": [1, "é"]}',
    "}",
    "\n",
    "Hi 🌧",
  ];
  const scripts = fc.array(fc.constantFrom(...pieces), { maxLength: 10 }).map((all) => all.join(""));
  await fc.assert(
    fc.asyncProperty(scripts, async (script) => {
      await using server = await FakeServer.start({ engine: { script }, tokenizer: knowing("hermes") });
      const { choices: [{ message, finish_reason }] } = await answer(server);
      const events = await readEvents(await post(server, { stream: true })) as Json[];
      const choices = events.slice(0, -1).map((e) => e.choices[0]);
      assert.equal(choices.map((c) => c.delta.content ?? "").join(""), message.content ?? "");
      const args: string[] = [];
      for (const { index, function: f } of choices.flatMap((c) => c.delta.tool_calls ?? [])) {
        args[index] = (args[index] ?? "") + f.arguments;
      }
      assert.deepEqual(args, (message.tool_calls ?? []).map((c: Json) => c.function.arguments));
      assert.equal(choices.at(-1).finish_reason, finish_reason);
    }),
    { numRuns: 25 },
  );
});

withAnswer("tokenize shows tools to the template as chat completions do", "", async (server) => {
  const { messages } = BODY;
  const { count } = await (await server.post("/tokenize", { model: "fake", messages, tools: TOOLS })).json();
  const tokenized = rendered;
  const { usage } = await answer(server);
  assert.deepEqual([tokenized, count], [rendered, usage.prompt_tokens]);
});

function nested(depth: number): object {
  let schema: object = {};
  for (let i = 0; i < depth; i++) schema = { items: schema };
  return schema;
}

withAnswer("tools that cannot be used are 400 and name the field", "", async (server) => {
  const strict = (parameters: object) => [tool("a", { strict: true, parameters })];
  const cases: [body: object, param: string][] = [
    [{ tools: [tool("a b")] }, "tools.0.function.name"],
    [{ tools: [tool("x".repeat(65))] }, "tools.0.function.name"],
    [{ tools: [{ type: "custom" }] }, "tools.0.type"],
    [{ tools: [tool("a"), tool("a")] }, "tools"],
    [{ tools: Array.from({ length: 129 }, (_, i) => tool(`a${i}`)) }, "tools"],
    [{ tools: [tool("a", { description: "x".repeat(300_000) })] }, "tools"],
    [{ tools: [tool("a", { parameters: { type: "array" } })] }, "tools.0.function.parameters.type"],
    [{ tools: strict({ properties: { a: { multipleOf: 5 } } }) }, "tools.0.function.parameters"],
    ...[100, 8000].map((depth): [object, string] => [
      { tools: [tool("a", { parameters: nested(depth) })] },
      "tools.0.function.parameters",
    ]),
    [{ tools: [], tool_choice: "required" }, "tool_choice"],
    [{ tool_choice: "maybe" }, "tool_choice"],
    [{ tool_choice: { type: "function", function: { name: "unknown" } } }, "tool_choice"],
    [{ functions: [] }, "functions"],
    [{ function_call: "auto" }, "function_call"],
    [{ messages: [{ role: "tool", content: "x" }] }, "messages.0.tool_call_id"],
    ...["[]", "{", "null", `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`].map((
      args,
    ): [object, string] => [
      {
        messages: [{
          role: "assistant",
          tool_calls: [{ id: "1", type: "function", function: { name: "a", arguments: args } }],
        }],
      },
      "messages.0.tool_calls.0.function.arguments",
    ]),
    [
      { messages: [{ role: "assistant", tool_calls: [{ id: "1", type: "function" }] }] },
      "messages.0.tool_calls.0.function",
    ],
  ];
  for (const [body, param] of cases) {
    const { error } = await answer(server, body);
    assert.deepEqual(
      [error?.param, error?.code],
      [param, "invalid_request"],
      JSON.stringify(body).slice(0, 200),
    );
  }
});

Deno.test("a model whose template knows no tools, or an unknown syntax, is 400 and says the way out", async () => {
  for (
    const [toolSupport, why] of [["none", /does not read them/], ["unknown", /not among .*hermes/]] as const
  ) {
    await using server = await FakeServer.start({ engine: { script: "ok" }, tokenizer: { toolSupport } });
    const { error } = await answer(server);
    assert.deepEqual([error.param, error.code], ["tools", "invalid_request"]);
    assert.match(error.message, why);
    assert.match(error.message, /Model "fake" cannot call tools.*Leave "tools" out/);
    const { choices } = await answer(server, { tool_choice: "none" });
    assert.equal(choices[0].message.content, "ok");
  }
});

Deno.test("forced and strict calls ask the engine for a grammar, others do not", async () => {
  await using server = await FakeServer.start({ tokenizer: knowing("hermes") });
  const grammarOf = async (body: object) => {
    await answer(server, { max_tokens: 1, ...body });
    return server.engines[0].requests.at(-1)!.grammar?.source as Json;
  };
  const strict = tool("stop", { strict: true });
  const response_format = { type: "json_object" };
  assert.equal(await grammarOf({}), undefined);
  assert.equal(await grammarOf({ tool_choice: "none", tools: [strict] }), undefined);
  assert.deepEqual(Object.keys((await grammarOf({ tool_choice: "required" })).schemas), [
    "arguments_0",
    "arguments_1",
  ]);
  const named = { tool_choice: { type: "function", function: { name: "stop" } } };
  assert.deepEqual(Object.keys((await grammarOf(named)).schemas), ["arguments_0"]);
  assert.equal((await grammarOf({ tools: [strict] })).trigger, "<tool_call>");
  assert.deepEqual(Object.keys((await grammarOf({ response_format })).schemas), [
    "arguments_0",
    "arguments_1",
    "answer",
  ]);
  assert.deepEqual(Object.keys(await grammarOf({ response_format, tools: [] })), ["schema", "strict"]);
});
