/** POST /v1/responses of a real engine, by the official client and its helpers. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import type { OpenedModel } from "../../engine/open_model.ts";
import { FakeServer } from "../fake_server.ts";
import { openChatting } from "../testing/chatting_model.ts";
import { until } from "../until.ts";

const MODEL = "fake", INPUT = "Once upon a time, there was";
const RANDOM_REQUESTS = 100;
/** Fields that are extensions of ours stand outside the client's type. */
type Body = Partial<Omit<OpenAI.Responses.ResponseCreateParamsNonStreaming, "stream">> & {
  seed?: number;
  stop?: string[];
};

const Animal = z.object({ kind: z.enum(["cat", "dog"]), legs: z.int(), tame: z.boolean() });

describe("the official client's responses", () => {
  let server: FakeServer, client: OpenAI, model: OpenedModel;
  beforeAll(async () => {
    server = await FakeServer.start({ open: async () => model = await openChatting() });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  const request = (body: Body) => ({
    model: MODEL,
    input: INPUT,
    max_output_tokens: 12,
    temperature: 0,
    ...body,
  });
  const create = (body: Body = {}) => client.responses.create(request(body));

  it("says what chat completions say, from messages and instructions too", async () => {
    const chat = await client.chat.completions.create({
      model: MODEL,
      messages: [{ role: "system", content: "Tell a story." }, { role: "user", content: INPUT }],
      max_completion_tokens: 12,
      temperature: 0,
    });
    const instructed = await create({ instructions: "Tell a story." });
    assert.equal(instructed.output_text, chat.choices[0].message.content);
    assert.equal(instructed.usage!.input_tokens, chat.usage!.prompt_tokens);
    const content = [{ type: "input_text" as const, text: INPUT }];
    const listed = await create({
      input: [{ role: "developer", content: "Tell a story." }, { role: "user", content }],
    });
    assert.equal(listed.output_text, instructed.output_text);
    const output = listed.output as OpenAI.Responses.ResponseOutputMessage[];
    const next = await create({ input: [...output, { role: "user", content: "And then?" }] });
    assert.equal(next.status, "incomplete");
  });

  it("streams by iteration and by the helper what it creates whole", async () => {
    const whole = await create();
    const seen: string[] = [];
    let joined = "";
    for await (const event of await client.responses.create({ ...request({}), stream: true })) {
      seen.push(event.type);
      if (event.type === "response.output_text.delta") joined += event.delta;
    }
    assert.deepEqual([seen[0], seen.at(-1)], ["response.created", "response.incomplete"]);
    assert.equal(joined, whole.output_text);
    const snapshots: string[] = [];
    const helper = client.responses.stream(request({}))
      .on("response.output_text.delta", (e) => snapshots.push(e.snapshot));
    const final = await helper.finalResponse();
    assert.equal(final.output_text, whole.output_text);
    assert.equal(snapshots.at(-1), whole.output_text);
    assert.deepEqual(final.usage!.output_tokens, whole.usage!.output_tokens);
    assert.deepEqual(final.incomplete_details, { reason: "max_output_tokens" });
  });

  it("parses answers of a Zod schema, whole and streamed", async () => {
    const text = { format: zodTextFormat(Animal, "animal") };
    const body = { ...request({ max_output_tokens: 300, temperature: 1, seed: 4 }), text };
    const whole = await client.responses.parse(body);
    assert.ok(Animal.parse(whole.output_parsed));
    const streamed = await client.responses.stream(body).finalResponse();
    assert.deepEqual(streamed.output_parsed, whole.output_parsed);
    const object = await create({ text: { format: { type: "json_object" } } });
    assert.match(object.output_text, /^\{/);
  });

  it("leaves by abort and by break, and the engine is idle at once", async () => {
    const long = { ...request({}), max_output_tokens: 450 };
    for await (const _ of await client.responses.create({ ...long, stream: true })) break;
    await until(() => model.engine.stats().running === 0);
    const helper = client.responses.stream(long);
    helper.on("response.output_text.delta", () => helper.abort());
    await assert.rejects(helper.finalResponse(), OpenAI.APIUserAbortError);
    await until(() => model.engine.stats().running === 0);
  });

  it("leaves by abort while it waits for a whole response", async () => {
    await using slow = await FakeServer.start({ engine: { tokenDelayMs: 5 } });
    const client = new OpenAI({ baseURL: `${slow.url}/v1`, apiKey: "none", maxRetries: 0 });
    const controller = new AbortController();
    const whole = client.responses.create(request({ max_output_tokens: 100 }), { signal: controller.signal });
    await until(() => slow.engines[0]?.running === 1);
    controller.abort();
    await assert.rejects(whole, OpenAI.APIUserAbortError);
  });

  it("meets errors by class", async () => {
    await assert.rejects(create({ model: "nobody" }), OpenAI.NotFoundError);
    await assert.rejects(client.responses.retrieve("resp_1"), OpenAI.NotFoundError);
    const schema = { type: "string", pattern: "((" };
    const refused = create({ text: { format: { type: "json_schema", name: "x", schema, strict: true } } });
    await assert.rejects(
      refused,
      (e) => e instanceof OpenAI.BadRequestError && e.param === "text.format.schema",
    );
    await assert.rejects(create({ store: true }), OpenAI.BadRequestError);
  });

  it(`joins streams to what it gets whole, for ${RANDOM_REQUESTS} seeded random requests`, async () => {
    const body = fc.record({
      seed: fc.integer(),
      input: fc.constantFrom(INPUT, "Ä 🌾", "Tom said:"),
      temperature: fc.constantFrom(0, 0.7, 1, 1.5),
      top_p: fc.constantFrom(1, 0.9),
      top_logprobs: fc.constantFrom(0, 2),
      stop: fc.constantFrom<string[]>([], [" the", "."], [" and", "\n"]),
      max_output_tokens: fc.integer({ min: 1, max: 14 }),
    });
    const same = async (body: Body) => {
      const [whole, streamed] = await Promise.all([
        create(body),
        client.responses.stream(request(body)).finalResponse(),
      ]);
      const shown = ({ output, status, usage }: OpenAI.Responses.Response) => {
        const [message] = output as OpenAI.Responses.ResponseOutputMessage[];
        const { text, logprobs } = message.content[0] as OpenAI.Responses.ResponseOutputText;
        return { text, logprobs, status, tokens: usage!.output_tokens };
      };
      assert.deepEqual(shown(streamed), shown(whole));
    };
    await fc.assert(fc.asyncProperty(body, same), { numRuns: RANDOM_REQUESTS, seed: 7 });
  });
});
