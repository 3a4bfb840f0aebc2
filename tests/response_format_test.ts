/** Answers under a grammar, of a real engine, asked for by the official client. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import OpenAI from "openai";
import type { OpenedModel } from "../engine/open_model.ts";
import { FakeServer } from "./fake_server.ts";
import { openChatting } from "./testing/chatting_model.ts";
import { until } from "./until.ts";

type Body = Partial<Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, "model" | "messages">>;
type Schema = Record<string, unknown>;

const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer" },
    kind: { enum: ["cat", "dog", "Käfer 🌾"] },
    likes: { type: "array", items: { type: "boolean" }, minItems: 1, maxItems: 2 },
  },
  required: ["name", "age", "kind", "likes"],
  additionalProperties: false,
};
const format = (schema: Schema, strict = true): Body["response_format"] => ({
  type: "json_schema",
  json_schema: { name: "answer", schema, strict },
});

describe("response_format", () => {
  let server: FakeServer, client: OpenAI, model: OpenedModel;
  beforeAll(async () => {
    server = await FakeServer.start({ open: async () => model = await openChatting() });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  const request = (body: Body) => ({
    model: "fake",
    messages: [{ role: "user" as const, content: "Once upon a time" }],
    max_completion_tokens: 300,
    ...body,
  });
  const chat = (body: Body) => client.chat.completions.create(request(body));

  it("json_schema gives an answer that has the schema, whatever is drawn, and ends by itself", async () => {
    for (const temperature of [0, 1, 1.5]) {
      const { choices } = await chat({ response_format: format(PERSON), temperature, n: 3, seed: 4 });
      for (const { message, finish_reason } of choices) {
        assert.equal(finish_reason, "stop", message.content!);
        const person = JSON.parse(message.content!);
        assert.deepEqual(Object.keys(person), ["name", "age", "kind", "likes"]);
        assert.ok(typeof person.name === "string" && [...person.name].length <= 12);
        assert.ok(Number.isInteger(person.age) && PERSON.properties.kind.enum.includes(person.kind));
        assert.ok([1, 2].includes(person.likes.length), message.content!);
      }
    }
  });

  it("json_object gives an object, or the beginning of one at the limit", async () => {
    const { choices } = await chat({
      response_format: { type: "json_object" },
      temperature: 1,
      n: 4,
      seed: 1,
      max_completion_tokens: 60,
    });
    for (const { message, finish_reason } of choices) {
      assert.match(message.content!, /^\{/);
      if (finish_reason === "stop") assert.equal(typeof JSON.parse(message.content!), "object");
    }
  });

  it("streams what it answers whole, with log-probabilities, beside others in the batch", async () => {
    const sampled = fc.record({
      seed: fc.integer(),
      temperature: fc.constantFrom(0, 1),
      top_p: fc.constantFrom(1, 0.8),
      n: fc.integer({ min: 1, max: 3 }),
      logprobs: fc.boolean(),
      max_completion_tokens: fc.integer({ min: 1, max: 60 }),
    });
    const same = async (body: Body) => {
      const constrained = request({ ...body, response_format: format(PERSON) });
      const [whole, joined] = await Promise.all([
        client.chat.completions.create(constrained),
        join(await client.chat.completions.create({ ...constrained, stream: true })),
        chat({ max_completion_tokens: 30 }),
      ]);
      const shown = whole.choices.map(({ message, finish_reason, logprobs }) => [
        message.content,
        finish_reason,
        (logprobs?.content ?? []).map((t) => t.logprob),
      ]);
      assert.deepEqual(joined, shown);
    };
    await fc.assert(fc.asyncProperty(sampled, same), { numRuns: 15, seed: 3 });
  });

  it("refuses a schema that it cannot use with 400 and the reason, and serves on", async () => {
    const cases: [schema: Schema, reason: RegExp][] = [
      [{ type: "nope" }, /Unsupported type "nope"/],
      [{ $ref: "#/nowhere" }, /nowhere/],
      [{ type: "string", pattern: "((" }, /parenthesis/],
      [nested(300), /nested more than 64 levels/],
      [{ type: "integer", multipleOf: 5 }, /#: "multipleOf" cannot be enforced; without "strict"/],
    ];
    for (const [schema, reason] of cases) {
      await assert.rejects(chat({ response_format: format(schema) }), (e) => {
        assert.ok(e instanceof OpenAI.BadRequestError);
        assert.equal(e.param, "response_format.json_schema.schema");
        assert.match(e.message, reason);
        return true;
      });
    }
    const wrong: [unknown, string][] = [
      [{ type: "json_schema" }, "response_format.json_schema"],
      [{ type: "xml" }, "response_format.type"],
      [{ type: "json_schema", json_schema: { name: "x", schema: 5 } }, "response_format.json_schema.schema"],
    ];
    for (const [response_format, param] of wrong) {
      const answer = chat({ response_format: response_format as Body["response_format"] });
      await assert.rejects(answer, (e) => e instanceof OpenAI.BadRequestError && e.param === param);
    }
    const loosely = await chat({ response_format: format({ type: "integer", multipleOf: 5 }, false) });
    assert.match(loosely.choices[0].message.content!, /^-?\d+$/);
    const { choices } = await chat({ response_format: format({ const: "fine" }) });
    assert.equal(choices[0].message.content, '"fine"');
  });

  it("holds for completions too: every prompt, whole and streamed, refused alike", async () => {
    const body = {
      model: "fake",
      prompt: ["Tom is", "Lily is"],
      max_tokens: 300,
      temperature: 1,
      seed: 6,
      response_format: format(PERSON),
    };
    const whole = await client.completions.create(body);
    const texts = whole.choices.map(({ text, finish_reason }) => [text, finish_reason]);
    for (const [text, reason] of texts) {
      assert.equal(reason, "stop");
      assert.deepEqual(Object.keys(JSON.parse(text)), ["name", "age", "kind", "likes"]);
    }
    const joined = body.prompt.map(() => ["", ""]);
    for await (const { choices } of await client.completions.create({ ...body, stream: true })) {
      for (const { index, text, finish_reason } of choices) {
        joined[index] = [joined[index][0] + text, finish_reason ?? joined[index][1]];
      }
    }
    assert.deepEqual(joined, texts);
    const refused = client.completions.create(
      { ...body, response_format: format({ type: "nope" }) } as never,
    );
    const param = "response_format.json_schema.schema";
    await assert.rejects(refused, (e) => e instanceof OpenAI.BadRequestError && e.param === param);
  });

  it("frees the sequence of a client that leaves, and the grammar serves the next", async () => {
    const body = request({ response_format: { type: "json_object" }, max_completion_tokens: 400 });
    const stream = await client.chat.completions.create({ ...body, stream: true, temperature: 1, seed: 2 });
    for await (const _ of stream) break;
    await until(() => model.engine.stats().running === 0);
    const { choices } = await chat({ response_format: { type: "json_object" }, max_completion_tokens: 5 });
    assert.match(choices[0].message.content!, /^\{/);
  });

  it("leaves out of the batch who waits for a slow grammar", async () => {
    const slow = { type: "string", pattern: "^(([a-z ]{0,40}[0-9]?){0,40}x){3,40}$" };
    const body = request({ response_format: format(slow), temperature: 0, max_completion_tokens: 400 });
    const stream = await client.chat.completions.create({ ...body, stream: true });
    let constrained = 0;
    const reading = (async () => {
      for await (const _ of stream) constrained++;
    })().catch(() => {}); // 2 s for one token are too many
    const { usage } = await chat({ temperature: 0, max_completion_tokens: 300 });
    // If the batch waited, both would have got one token a step.
    assert.ok(constrained < usage!.completion_tokens / 2, `${constrained} beside`);
    stream.controller.abort();
    await reading;
  });

  it("speculation drafts under a grammar and changes nothing", async () => {
    const again = { type: "array", items: { const: "again and again" }, minItems: 6, maxItems: 6 };
    const before = model.engine.stats().draftedTokens;
    const { choices } = await chat({ response_format: format(again), temperature: 0 });
    assert.deepEqual(JSON.parse(choices[0].message.content!), Array(6).fill("again and again"));
    assert.ok(model.engine.stats().draftedTokens > before);
  });
});

/** Text, reason and log-probabilities of each choice. */
async function join(
  stream: AsyncIterable<OpenAI.ChatCompletionChunk>,
): Promise<[string, string, number[]][]> {
  const choices: [string, string, number[]][] = [];
  for await (const chunk of stream) {
    for (const { index, delta, finish_reason, logprobs } of chunk.choices) {
      const [text, end, values] = choices[index] ?? ["", "", []];
      const more = (logprobs?.content ?? []).map((t) => t.logprob);
      choices[index] = [text + (delta.content ?? ""), finish_reason ?? end, [...values, ...more]];
    }
  }
  return choices;
}

/** An object in an object, `depth` times. */
function nested(depth: number): Schema {
  let schema: Schema = { type: "string" };
  for (let i = 0; i < depth; i++) schema = { type: "object", properties: { a: schema } };
  return schema;
}
