/** Every field of completions and chat completions, asked for by the official client of a real engine. */
import assert from "node:assert/strict";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import OpenAI from "openai";
import { needTokenizer, type OpenedModel } from "../engine/open_model.ts";
import { FakeServer } from "./fake_server.ts";
import { openChatting } from "./testing/chatting_model.ts";
import { until } from "./until.ts";

const MODEL = "fake", PROMPT = "Once upon a time, there was";
const MESSAGES = [{ role: "user" as const, content: PROMPT }];
/** Requests of the comparison of streams with whole answers: half of each endpoint. */
const RANDOM_REQUESTS = 200;

type CompletionBody = Omit<OpenAI.CompletionCreateParamsNonStreaming, "model">;
type ChatBody = Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, "model" | "messages">;

describe("the official client", () => {
  let server: FakeServer, client: OpenAI, model: OpenedModel;
  beforeAll(async () => {
    server = await FakeServer.start({ open: async () => model = await openChatting() });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    await complete({ max_tokens: 1 });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  const complete = (body: Partial<CompletionBody>) =>
    client.completions.create({ model: MODEL, prompt: PROMPT, temperature: 0, max_tokens: 12, ...body });
  const chat = (body: Partial<ChatBody>) =>
    client.chat.completions.create({
      model: MODEL,
      messages: MESSAGES,
      temperature: 0,
      max_completion_tokens: 12,
      ...body,
    });
  const textOf = async (body: Partial<CompletionBody>) => (await complete(body)).choices[0].text;
  const idsOf = (text: string) => needTokenizer(model).encode(text);

  it("moves what is chosen by logit_bias: +100 forces a token, -100 forbids it, also in streams", async () => {
    const [forced] = needTokenizer(model).encode("dog", { addSpecialTokens: false });
    const bias = { [forced]: 100 };
    const word = needTokenizer(model).tokenBytes(forced);
    assert.match(await textOf({ logit_bias: bias, max_tokens: 4 }), /^(\S+)(\s?\1){3}$/);
    const { choices: [choice] } = await chat({
      logit_bias: bias,
      max_completion_tokens: 1,
      logprobs: true,
      temperature: 1,
    });
    assert.deepEqual(choice.logprobs!.content![0].bytes, [...word]);
    const plain = await complete({ logprobs: 0 });
    const first = plain.choices[0].logprobs!.tokens![0];
    const all = Array.from({ length: model.engine.vocabSize }, (_, id) => id);
    const forbidden = all.filter((id) =>
      new TextDecoder().decode(needTokenizer(model).tokenBytes(id)) === first
    );
    const logit_bias = Object.fromEntries(forbidden.map((id) => [id, -100]));
    const without = await complete({ logit_bias, logprobs: 0, max_tokens: 40 });
    assert.ok(!without.choices[0].logprobs!.tokens!.includes(first));
  });

  it("hears less of a word with presence and frequency penalties", async () => {
    const distinct = async (body: Partial<CompletionBody>) => {
      const { choices } = await complete({ max_tokens: 80, logprobs: 0, ...body });
      return new Set(choices[0].logprobs!.tokens).size;
    };
    const plain = await distinct({});
    assert.ok(await distinct({ presence_penalty: 2 }) > plain);
    assert.ok(await distinct({ frequency_penalty: 2 }) > plain);
  });

  it("gets the same again for the same seed, and each of n choices its own", async () => {
    const body = { temperature: 1, seed: 5, n: 3, max_tokens: 16 };
    const texts = async () => (await complete(body)).choices.map((c) => c.text);
    const first = await texts();
    assert.deepEqual(await texts(), first);
    assert.equal(new Set(first).size, 3);
    assert.notDeepEqual((await complete({ ...body, seed: 50 })).choices.map((c) => c.text), first);
    assert.equal((await chat({ n: 3, temperature: 1 })).choices.length, 3);
  });

  it("takes a batch as string[], int[] and int[][], and answers the choices of each in order", async () => {
    const prompts = ["One day, a boy", "The little girl"];
    const alone = await Promise.all(prompts.map((prompt) => textOf({ prompt })));
    const texts = async (prompt: CompletionBody["prompt"]) =>
      (await complete({ prompt })).choices.map((c) => c.text);
    assert.deepEqual(await texts(prompts), alone);
    assert.deepEqual(await texts(prompts.map(idsOf)), alone);
    assert.deepEqual(await texts(idsOf(prompts[0])), alone.slice(0, 1));
    const twice = await complete({ prompt: prompts, n: 2 });
    assert.deepEqual(twice.choices.map((c) => [c.index, c.text]), [0, 0, 1, 1].map((p, i) => [i, alone[p]]));
  });

  it("echoes the prompt, alone with max_tokens 0, with its log-probabilities", async () => {
    const text = await textOf({});
    const echoed = await complete({ echo: true, logprobs: 2 });
    assert.equal(echoed.choices[0].text, PROMPT + text);
    const { tokens, token_logprobs, top_logprobs, text_offset } = echoed.choices[0].logprobs!;
    assert.equal(tokens!.length, idsOf(PROMPT).length + 12);
    assert.equal(token_logprobs![0], null);
    assert.ok(
      token_logprobs!.slice(1).every((p) => p <= 0) && Object.keys(top_logprobs!.at(-1)!).length === 2,
    );
    assert.equal(text_offset!.at(-12), PROMPT.length);
    const alone = await complete({ echo: true, max_tokens: 0, logprobs: 0 });
    assert.deepEqual([alone.choices[0].text, alone.usage!.completion_tokens], [PROMPT, 0]);
    assert.deepEqual(alone.choices[0].logprobs!.token_logprobs, token_logprobs!.slice(0, -12));
  });

  it("gets log-probabilities of a distribution, the chosen one first when greedy", async () => {
    const { choices: [{ logprobs, message }] } = await chat({ logprobs: true, top_logprobs: 20 });
    for (const token of logprobs!.content!) {
      assert.equal(token.top_logprobs.length, 20);
      assert.equal(token.top_logprobs[0].logprob, token.logprob);
      const mass = token.top_logprobs.reduce((sum, t) => sum + Math.exp(t.logprob), 0);
      assert.ok(mass > 0.1 && mass <= 1.0001, `${mass}`);
    }
    const bytes = logprobs!.content!.flatMap((t) => t.bytes!);
    assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)).trimStart(), message.content!.trimStart());
    assert.deepEqual((await chat({ logprobs: true })).choices[0].logprobs!.content![0].top_logprobs, []);
  });

  it("has stop strings and the limit end an answer, and reads why", async () => {
    const long = await textOf({ max_tokens: 40 });
    const stop = long.slice(12, 19);
    const stopped = await complete({ max_tokens: 40, stop: ["never said", stop] });
    assert.deepEqual(
      [stopped.choices[0].text, stopped.choices[0].finish_reason],
      [long.slice(0, long.indexOf(stop)), "stop"],
    );
    const short = await chat({ max_tokens: 9, max_completion_tokens: 3 });
    assert.deepEqual([short.choices[0].finish_reason, short.usage!.completion_tokens], ["length", 3]);
  });

  it("reads usage from a stream that was asked for it, and the helper's final message", async () => {
    const stream = client.chat.completions.stream({
      model: MODEL,
      messages: MESSAGES,
      max_completion_tokens: 12,
      temperature: 0,
      stream_options: { include_usage: true },
    });
    const { choices, usage } = await stream.finalChatCompletion();
    const whole = await chat({});
    assert.equal(choices[0].message.content, whole.choices[0].message.content);
    assert.equal(usage!.completion_tokens, 12);
    assert.equal(whole.choices[0].message.refusal, null);
  });

  it("leaves a stream by abort, and the engine is idle at once", async () => {
    const stream = await client.completions.create({
      model: MODEL,
      prompt: PROMPT,
      max_tokens: 450,
      stream: true,
    });
    for await (const _ of stream) break;
    await until(() => model.engine.stats().running === 0);
  });

  it("meets BadRequestError that names the field for what cannot be", async () => {
    const refused = async (answer: Promise<unknown>, param: string) =>
      await assert.rejects(answer, (e) => {
        assert.ok(e instanceof OpenAI.BadRequestError);
        assert.deepEqual([e.param, e.code, e.type], [param, "invalid_request", "invalid_request_error"]);
        return true;
      });
    await refused(complete({ suffix: "the end" }), "suffix");
    await refused(complete({ best_of: 3 }), "best_of");
    await refused(complete({ n: 2, best_of: 3 }), "best_of");
    await refused(complete({ logprobs: 6 }), "logprobs");
    await refused(complete({ presence_penalty: 2.1 }), "presence_penalty");
    await refused(complete({ frequency_penalty: -2.1 }), "frequency_penalty");
    await refused(complete({ logit_bias: { "3": 101 } }), "logit_bias.3");
    await refused(complete({ logit_bias: { "99999": 1 } }), "logit_bias");
    await refused(complete({ prompt: [[1], []] }), "prompt.1");
    await refused(complete({ n: 0 }), "n");
    await refused(complete({ stop: ["1", "2", "3", "4", "5"] }), "stop");
    await refused(chat({ top_logprobs: 1 }), "top_logprobs");
    await refused(chat({ logprobs: true, top_logprobs: 21 }), "top_logprobs");
    await refused(chat({ max_completion_tokens: -1 }), "max_completion_tokens");
    assert.equal((await complete({ best_of: 2, n: 2 })).choices.length, 2);
  });

  it(`joins streams to what it gets whole, for ${RANDOM_REQUESTS} seeded random requests`, async () => {
    const common = {
      seed: fc.integer(),
      temperature: fc.constantFrom(0, 0.7, 1, 1.5),
      top_p: fc.constantFrom(1, 0.9, 0.5),
      n: fc.integer({ min: 1, max: 3 }),
      stop: fc.constantFrom<string[]>([], [" the", "."], ["He"], [" and", "\n"]),
      presence_penalty: fc.constantFrom(0, 1.5),
      frequency_penalty: fc.constantFrom(0, -1),
      logit_bias: fc.constantFrom<Record<string, number>>({}, { "300": 3, "13": -100 }),
      max_tokens: fc.integer({ min: 1, max: 14 }),
    };
    const completion = fc.record({
      ...common,
      prompt: fc.constantFrom<string | string[]>(PROMPT, "Ä 🌾", ["A cat", 'Tom said: "'], ""),
      echo: fc.boolean(),
      logprobs: fc.constantFrom(null, 0, 2),
    });
    const answer = fc.record({ ...common, logprobs: fc.boolean() });
    const runs = { numRuns: RANDOM_REQUESTS / 2, seed: 7 };
    await fc.assert(fc.asyncProperty(completion, (body) => sameCompletion(client, body)), runs);
    await fc.assert(fc.asyncProperty(answer, (body) => sameChat(client, body)), runs);
  });
});

async function sameCompletion(client: OpenAI, body: CompletionBody): Promise<void> {
  const stream_options = { include_usage: true };
  const [whole, stream] = await Promise.all([ // in one batch of the engine
    client.completions.create({ model: MODEL, ...body }),
    client.completions.create({ model: MODEL, ...body, stream: true, stream_options }),
  ]);
  const joined = whole.choices.map(() => ({
    text: "",
    tokens: [] as string[],
    values: [] as number[],
    end: "",
  }));
  let usage;
  for await (const chunk of stream) {
    usage = chunk.usage;
    for (const { index, text, logprobs, finish_reason } of chunk.choices) {
      joined[index].text += text;
      joined[index].tokens.push(...logprobs?.tokens ?? []);
      joined[index].values.push(...logprobs?.token_logprobs ?? []);
      joined[index].end ||= finish_reason;
    }
  }
  assert.deepEqual(
    joined,
    whole.choices.map(({ text, logprobs, finish_reason }) => ({
      text,
      tokens: logprobs?.tokens ?? [],
      values: logprobs?.token_logprobs ?? [],
      end: finish_reason,
    })),
  );
  assert.equal(usage!.completion_tokens, whole.usage!.completion_tokens);
}

async function sameChat(client: OpenAI, body: ChatBody): Promise<void> {
  const request = { model: MODEL, messages: MESSAGES, ...body };
  const whole = await client.chat.completions.create(request);
  const { choices } = await client.chat.completions.stream({ ...request, stream: true })
    .finalChatCompletion();
  const shown = (all: typeof choices | typeof whole.choices) =>
    all.map(({ message, finish_reason, logprobs }) => [
      message.content,
      finish_reason,
      logprobs?.content ?? null,
    ]);
  assert.deepEqual(shown(choices), shown(whole.choices));
}
