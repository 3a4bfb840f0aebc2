/** Calls of tools in responses, by the official client of a model that writes what a test says. */
import assert from "node:assert/strict";
import OpenAI from "openai";
import type { ChatMessage } from "../../models/tokenizer.ts";
import { TOOL_SYNTAXES } from "../../models/tools/syntax.ts";
import { FakeServer } from "../../tests/fake_server.ts";

const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const WEATHER = {
  type: "function" as const,
  name: "get_weather",
  description: "Weather of a city",
  parameters: PARAMETERS,
  strict: false,
};
const PARIS = '{"city": "Paris"}', ROME = '{"city": "Rome"}';
const call = (args: string) => `<tool_call>\n{"name": "get_weather", "arguments": ${args}}\n</tool_call>`;

class Lab implements AsyncDisposable {
  rendered: { messages: readonly ChatMessage[]; tools: unknown } | null = null;
  #server: FakeServer | null = null;
  constructor(readonly script: string) {}

  async client(): Promise<OpenAI> {
    this.#server = await FakeServer.start({
      engine: { script: this.script },
      tokenizer: {
        toolSupport: TOOL_SYNTAXES.find(({ name }) => name === "hermes")!,
        renderChat: (messages, o) => {
          this.rendered = { messages, tools: o?.tools ?? null };
          return "prompt";
        },
      },
    });
    return new OpenAI({ baseURL: `${this.#server.url}/v1`, apiKey: "none", maxRetries: 0 });
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
  }
}
const request = (body: object = {}) => ({
  model: "fake",
  input: "hi",
  temperature: 0,
  max_output_tokens: 200,
  tools: [WEATHER],
  ...body,
});

Deno.test("a response has the calls of its text as items, whole and streamed", async () => {
  await using lab = new Lab(`I look.\n${call(PARIS)}\n${call(ROME)}`);
  const client = await lab.client(), whole = await client.responses.create(request());
  const [message, first, second] = whole.output;
  assert.ok(message.type === "message" && first.type === "function_call" && second.type === "function_call");
  assert.equal(whole.output_text, "I look.");
  assert.deepEqual([first.name, first.arguments, first.status], ["get_weather", PARIS, "completed"]);
  assert.equal(second.arguments, ROME);
  assert.equal(new Set([message.id, first.id, first.call_id, second.id, second.call_id]).size, 5);
  assert.deepEqual(whole.tools, [WEATHER]);
  assert.equal(lab.rendered!.messages.length, 1);
  assert.deepEqual(lab.rendered!.tools, [{
    type: "function",
    function: { name: "get_weather", description: "Weather of a city", parameters: PARAMETERS },
  }]);

  const types: string[] = [], pieces: Record<number, string> = {};
  const stream = client.responses.stream(request());
  for await (const event of stream) {
    types.push(event.type);
    if (event.type === "response.function_call_arguments.delta") {
      pieces[event.output_index] = (pieces[event.output_index] ?? "") + event.delta;
    }
  }
  assert.deepEqual(pieces, { 1: PARIS, 2: ROME });
  const final = await stream.finalResponse();
  const said = (r: OpenAI.Responses.Response) =>
    r.output.map((item) =>
      item.type === "function_call" ? [item.name, item.arguments, item.status] : item.type
    );
  assert.deepEqual(said(final as OpenAI.Responses.Response), said(whole));
  for (const type of ["output_item.added", "output_item.done"]) {
    assert.equal(types.filter((t) => t === `response.${type}`).length, 3, type);
  }
  const one = await client.responses.create(request({ parallel_tool_calls: false }));
  assert.equal(one.output.length, 2);
});

Deno.test("a call alone leaves no message, and a limit cuts it", async () => {
  await using lab = new Lab(call(PARIS));
  const client = await lab.client(), whole = await client.responses.create(request());
  assert.deepEqual(whole.output.map(({ type }) => type), ["function_call"]);
  const cut = await client.responses.create(request({ max_output_tokens: 60 }));
  const [item] = cut.output;
  assert.ok(item.type === "function_call" && PARIS.startsWith(item.arguments) && item.arguments !== PARIS);
  assert.deepEqual([cut.status, item.status], ["incomplete", "incomplete"]);
});

Deno.test("without tools, or with none that may be called, a text that looks like a call is a message", async () => {
  await using lab = new Lab(call(PARIS));
  const client = await lab.client();
  for (const body of [{ tools: [] }, { tool_choice: "none" }]) {
    const { output, output_text } = await client.responses.create(request(body));
    assert.deepEqual([output.map(({ type }) => type), output_text], [["message"], call(PARIS)]);
  }
});

Deno.test("what a response put out and what its calls gave go in again", async () => {
  await using lab = new Lab(`I look.\n${call(PARIS)}\n${call(ROME)}`);
  const client = await lab.client(), { output } = await client.responses.create(request());
  const calls = output.filter((item) => item.type === "function_call");
  await client.responses.create(request({
    input: [
      { role: "user", content: "hi" },
      ...output,
      { type: "function_call_output", call_id: calls[0].call_id, output: "20" },
      {
        type: "function_call_output",
        call_id: calls[1].call_id,
        output: [{ type: "input_text", text: "30" }],
      },
    ],
  }));
  const asked = (i: number, city: string) => ({
    id: calls[i].call_id,
    type: "function",
    function: { name: "get_weather", arguments: { city } },
  });
  const answer = (i: number, content: string) => ({
    role: "tool",
    tool_call_id: calls[i].call_id,
    name: "get_weather",
    content,
  });
  assert.deepEqual(lab.rendered!.messages, [
    { role: "user", content: "hi" },
    { role: "assistant", content: "I look.", tool_calls: [asked(0, "Paris"), asked(1, "Rome")] },
    answer(0, "20"),
    answer(1, "30"),
  ]);
});
