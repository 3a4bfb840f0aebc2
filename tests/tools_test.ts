/** Tool calls: forced ones of a real engine, and loops of the official client over scripted answers. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import OpenAI from "openai";
import { zodFunction } from "openai/helpers/zod";
import { z } from "zod";
import type { ChatMessage } from "../models/tokenizer.ts";
import { TOOL_SYNTAXES } from "../models/tools/syntax.ts";
import { FakeServer } from "./fake_server.ts";
import { openChatting } from "./testing/chatting_model.ts";

type Body = Partial<Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, "model">>;
type Call = OpenAI.ChatCompletionMessageFunctionToolCall;

const UNITS = ["celsius", "fahrenheit"];
const WEATHER: OpenAI.ChatCompletionFunctionTool = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: {
      type: "object",
      properties: {
        city: { type: "string", maxLength: 10 },
        unit: { enum: UNITS },
        days: { type: "integer", minimum: 1, maximum: 14 },
      },
      required: ["city", "unit"],
      additionalProperties: false,
    },
  },
};
const STOP: OpenAI.ChatCompletionFunctionTool = { type: "function", function: { name: "stop" } };
const client = (server: FakeServer) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });

function checkCall({ id, function: { name, arguments: text } }: Call): void {
  assert.match(id, /^call_/);
  const args = JSON.parse(text);
  if (name === "stop") return assert.deepEqual(args, {});
  assert.equal(name, "get_weather");
  const { city, unit, days = 1, ...others } = args;
  assert.ok(typeof city === "string" && [...city].length <= 10 && UNITS.includes(unit), text);
  assert.ok(Number.isInteger(days) && days >= 1 && days <= 14, text);
  assert.deepEqual(others, {});
}
const callsOf = (message: OpenAI.ChatCompletionMessage): Call[] => (message.tool_calls ?? []) as Call[];

/** The limit may cut the last one. */
const wholeOf = (calls: Call[], finishReason: string): Call[] =>
  finishReason === "length" ? calls.slice(0, -1) : calls;

/** What a template says of its calls, by the syntax that it stands for. */
const TEMPLATES: Readonly<Record<string, string>> = {
  hermes: "<tool_call>",
  llama3: "<|python_tag|>",
  mistral: "[TOOL_CALLS]",
};
const template = (syntax: string) =>
  `{% if tools %}{{ tools[0].function.name }} ${TEMPLATES[syntax]} {% endif %}` +
  "{% for m in messages %}{{ m.content }} {% endfor %}";

describe("forced calls", () => {
  const servers = new Map<string, FakeServer>();
  beforeAll(async () => {
    for (const syntax of Object.keys(TEMPLATES)) {
      servers.set(syntax, await FakeServer.start({ open: () => openChatting(template(syntax)) }));
    }
  });
  afterAll(async () => {
    for (const server of servers.values()) await server[Symbol.asyncDispose]();
  });
  const request = (body: Body) => ({
    model: "fake",
    messages: [{ role: "user" as const, content: "Once upon a time" }],
    tools: [WEATHER, STOP],
    max_completion_tokens: 400,
    ...body,
  });
  const chat = (syntax: string, body: Body) =>
    client(servers.get(syntax)!).chat.completions.create(request(body));

  it("required: every answer is one valid call, whatever is drawn, in each syntax", async () => {
    for (const syntax of Object.keys(TEMPLATES)) {
      const { choices } = await chat(syntax, {
        tool_choice: "required",
        parallel_tool_calls: false,
        temperature: 1.3,
        n: 6,
        seed: 3,
      });
      for (const { message, finish_reason } of choices) {
        assert.deepEqual([message.content, finish_reason], [null, "tool_calls"]);
        const [call, ...others] = callsOf(message);
        assert.deepEqual(others, []);
        if (syntax === "mistral") assert.match(call.id, /^[a-z0-9]{9}$/);
        checkCall(syntax === "mistral" ? { ...call, id: "call_" } : call);
      }
    }
  });

  it("a named tool is called, and parallel calls may be several", async () => {
    const tool_choice = { type: "function" as const, function: { name: "get_weather" } };
    const named = await chat("hermes", { tool_choice, temperature: 1, seed: 1 });
    assert.deepEqual(callsOf(named.choices[0].message).map((c) => c.function.name), ["get_weather"]);
    const { choices } = await chat("hermes", {
      tool_choice: "required",
      tools: [STOP],
      temperature: 1,
      n: 4,
      seed: 2,
    });
    for (const { message, finish_reason } of choices) {
      const calls = callsOf(message);
      assert.ok(calls.length > 1 && calls.length <= 16);
      wholeOf(calls, finish_reason).forEach(checkCall);
    }
  });

  it("auto leaves the model its text: strict tools and response_format bind what they name", async () => {
    const strict = { ...STOP, function: { ...STOP.function, strict: true } };
    const free = await chat("hermes", { tools: [strict], max_completion_tokens: 20, temperature: 0 });
    assert.equal(callsOf(free.choices[0].message).length, 0);
    assert.ok(free.choices[0].message.content!.length > 20);
    const schema = { type: "object", properties: { kind: { enum: ["cat", "dog"] } }, required: ["kind"] };
    const { choices } = await chat("hermes", {
      response_format: { type: "json_schema", json_schema: { name: "answer", schema } },
      temperature: 1,
      n: 6,
      seed: 8,
    });
    const reasons = choices.map(({ message, finish_reason }) => {
      if (finish_reason === "stop") assert.ok(["cat", "dog"].includes(JSON.parse(message.content!).kind));
      wholeOf(callsOf(message), finish_reason).forEach(checkCall);
      return finish_reason;
    });
    assert.ok(reasons.includes("stop") && reasons.some((reason) => reason !== "stop"), reasons.join());
  });

  it("streams what it answers whole", async () => {
    const sampled = fc.record({
      seed: fc.integer(),
      temperature: fc.constantFrom(0, 1, 1.5),
      tool_choice: fc.constantFrom("required" as const, "auto" as const),
      max_completion_tokens: fc.integer({ min: 1, max: 120 }),
      n: fc.integer({ min: 1, max: 2 }),
    });
    const same = async (body: Body) => {
      const whole = await chat("hermes", body);
      const stream = client(servers.get("hermes")!).chat.completions.stream({
        ...request(body),
        stream: true,
      });
      // The helper refuses answers that a limit cut.
      const last = await stream.finalChatCompletion().catch((error) => {
        assert.ok(error instanceof OpenAI.OpenAIError && /length limit/.test(error.message), String(error));
        return stream.currentChatCompletionSnapshot!;
      });
      const shown = (choices: OpenAI.ChatCompletion["choices"]) =>
        choices.map(({ message, finish_reason }) => [
          message.content ?? "",
          callsOf(message).map((call) => [call.function.name, call.function.arguments]),
          finish_reason,
        ]);
      assert.deepEqual(shown(last.choices as OpenAI.ChatCompletion["choices"]), shown(whole.choices));
    };
    await fc.assert(fc.asyncProperty(sampled, same), { numRuns: 12, seed: 4 });
  });
});

/** Calls the weather until a tool's message has it. */
const scripted = (prompt: string): string =>
  prompt.includes("tool: ")
    ? `It has ${prompt.match(/tool: (\d+)/)![1]} degrees.`
    : 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln", "unit": "celsius"}}\n</tool_call>';

const parsedArguments = (calls: readonly unknown[] | undefined): unknown =>
  (calls![0] as { function: { parsed_arguments: unknown } }).function.parsed_arguments;

describe("the official client's helpers", () => {
  let server: FakeServer;
  beforeAll(async () => {
    server = await FakeServer.start({
      engine: { script: scripted },
      tokenizer: {
        toolSupport: TOOL_SYNTAXES.find((s) => s.name === "hermes")!,
        renderChat: (messages: ChatMessage[]) => messages.map((m) => `${m.role}: ${m.content}\n`).join(""),
      },
    });
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const messages = [{ role: "user" as const, content: "How warm is it in Köln?" }];
  const schema = z.object({ city: z.string(), unit: z.enum(["celsius", "fahrenheit"]) });

  it("runTools() calls the function and hands its result back until there is an answer", async () => {
    for (const stream of [false, true]) {
      const asked: unknown[] = [];
      const runner = client(server).chat.completions.runTools({
        model: "fake",
        messages,
        stream: stream as true,
        tools: [{
          type: "function",
          function: {
            name: "get_weather",
            description: "The weather of a city",
            parameters: WEATHER.function.parameters!,
            parse: JSON.parse,
            function: (args: unknown) => {
              asked.push(args);
              return "17 °C";
            },
          },
        }],
      });
      assert.equal(await runner.finalContent(), "It has 17 degrees.");
      assert.deepEqual(asked, [{ city: "Köln", unit: "celsius" }]);
      assert.deepEqual(runner.messages.map((m) => m.role), ["user", "assistant", "tool", "assistant"]);
      assert.equal(runner.messages[1].content, "I look.");
    }
  });

  it("stream() tells of arguments as they come and parses them by a zod schema", async () => {
    const pieces: string[] = [];
    const stream = client(server).chat.completions.stream({
      model: "fake",
      messages,
      tools: [zodFunction({ name: "get_weather", parameters: schema })],
    });
    stream.on("tool_calls.function.arguments.delta", ({ arguments_delta }) => pieces.push(arguments_delta));
    const done = await stream.emitted("tool_calls.function.arguments.done");
    const { choices: [{ message, finish_reason }] } = await stream.finalChatCompletion();
    assert.ok(pieces.length > 3);
    assert.equal(pieces.join(""), done.arguments);
    assert.deepEqual(parsedArguments(message.tool_calls), { city: "Köln", unit: "celsius" });
    assert.deepEqual([message.content, finish_reason], ["I look.", "tool_calls"]);
  });

  it("parse() reads the call of a whole answer", async () => {
    const { choices: [{ message }] } = await client(server).chat.completions.parse({
      model: "fake",
      messages,
      tools: [zodFunction({ name: "get_weather", parameters: schema })],
    });
    assert.deepEqual(parsedArguments(message.tool_calls), { city: "Köln", unit: "celsius" });
  });
});
