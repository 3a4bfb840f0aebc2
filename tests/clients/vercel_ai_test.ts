/** Vercel's `ai` with its provider for OpenAI-compatible servers, of a real engine. */
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { afterAll, beforeAll, describe, it } from "@std/testing/bdd";
import {
  APICallError,
  embed,
  embedMany,
  generateObject,
  generateText,
  Output,
  streamObject,
  streamText,
} from "ai";
import { z } from "zod";
import type { OpenedModel } from "../../engine/open_model.ts";
import { FakeServer } from "../fake_server.ts";
import { withOracle } from "../oracle_server.ts";
import { openChatting } from "../testing/chatting_model.ts";
import { until } from "../until.ts";

const PROMPT = "Once upon a time, there was";
const Animal = z.object({ kind: z.enum(["cat", "dog"]), tame: z.boolean() });

const providerOf = (server: FakeServer, apiKey = "none") =>
  createOpenAICompatible({
    name: "oatmill",
    baseURL: `${server.url}/v1`,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });

describe("Vercel's ai", () => {
  let server: FakeServer, model: OpenedModel, provider: ReturnType<typeof providerOf>;
  beforeAll(async () => {
    server = await FakeServer.start({ open: async () => model = await openChatting() });
    provider = providerOf(server);
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const request = () => ({ model: provider("fake"), maxOutputTokens: 12, temperature: 0, maxRetries: 0 });

  it("generateText: text, reason and usage; a conversation with a system message", async () => {
    const { text, finishReason, usage } = await generateText({ ...request(), prompt: PROMPT });
    assert.ok(text.length > 12);
    assert.deepEqual([finishReason, usage.outputTokens], ["length", 12]);
    assert.equal(usage.totalTokens, usage.inputTokens! + 12);
    const talk = await generateText({
      ...request(),
      system: "Tell a story.",
      messages: [
        { role: "user", content: [{ type: "text", text: PROMPT }] },
        { role: "assistant", content: "a cat." },
        { role: "user", content: "And then?" },
      ],
      stopSequences: ["."],
    });
    assert.ok(talk.usage.inputTokens! > usage.inputTokens! && !talk.text.includes("."));
  });

  it("streamText joins to what generateText says, with usage at the end", async () => {
    const seeded = { ...request(), prompt: PROMPT, temperature: 1, seed: 5 };
    const whole = await generateText(seeded);
    const stream = streamText(seeded);
    const parts: string[] = [];
    for await (const part of stream.textStream) parts.push(part);
    assert.ok(parts.length > 3);
    assert.equal(parts.join(""), whole.text);
    assert.equal(await stream.finishReason, "length");
    assert.equal((await stream.usage).outputTokens, 12);
  });

  it("generateObject and streamObject give what the schema says", async () => {
    const body = {
      ...request(),
      maxOutputTokens: 200,
      prompt: PROMPT,
      schema: Animal,
      temperature: 1,
      seed: 3,
    };
    const whole = await generateObject(body);
    assert.ok(Animal.parse(whole.object));
    assert.equal(whole.finishReason, "stop");
    const stream = streamObject(body);
    let last: unknown;
    for await (const partial of stream.partialObjectStream) last = partial;
    assert.deepEqual([last, await stream.object], [whole.object, whole.object]);
    const { output } = await generateText({ ...body, output: Output.object({ schema: Animal }) });
    assert.deepEqual(output, whole.object);
  });

  it("completionModel continues a text", async () => {
    const { text } = await generateText({
      ...request(),
      model: provider.completionModel("fake"),
      prompt: PROMPT,
    });
    assert.ok(text.length > 0);
  });

  it("leaves by abort, and the engine is idle at once", async () => {
    const controller = new AbortController();
    const long = { ...request(), maxOutputTokens: 450, prompt: PROMPT, abortSignal: controller.signal };
    for await (const _ of streamText(long).textStream) controller.abort();
    await until(() => model.engine.stats().running === 0);
  });

  it("leaves by abort while it waits for a whole answer", async () => {
    await using slow = await FakeServer.start({ engine: { tokenDelayMs: 5 } });
    const controller = new AbortController();
    const whole = generateText({
      ...request(),
      model: providerOf(slow)("fake"),
      maxOutputTokens: 100,
      prompt: PROMPT,
      abortSignal: controller.signal,
    });
    await until(() => slow.engines[0]?.running === 1);
    controller.abort();
    await assert.rejects(whole, { name: "AbortError" });
  });

  it("meets errors with their message, and knows which to try again", async () => {
    const rejected = async (body: object, status: number, message: RegExp) => {
      const answer = generateText({ ...request(), prompt: PROMPT, ...body });
      await assert.rejects(answer, (e) => {
        assert.ok(APICallError.isInstance(e));
        assert.deepEqual([e.statusCode, e.isRetryable], [status, false]);
        assert.match(e.message, message);
        return true;
      });
    };
    await rejected({ model: provider("nobody") }, 404, /does not exist/);
    await rejected({ topP: 2 }, 400, /top_p/);
  });
});

withOracle("Vercel's ai: embed and embedMany give the vectors of a real encoder", "bert", async (server) => {
  const model = providerOf(server).embeddingModel("fake");
  const { embedding, usage } = await embed({ model, value: "a cat" });
  assert.ok(embedding.length > 0 && embedding.every(Number.isFinite));
  assert.equal(usage.tokens, 6);
  const { embeddings } = await embedMany({ model, values: ["a cat", "a dog", "a cat"] });
  assert.deepEqual(embeddings[2], embeddings[0]);
  assert.notDeepEqual(embeddings[1], embeddings[0]);
  embeddings[0].forEach((v, i) => assert.ok(Math.abs(v - embedding[i]) < 1e-3));
});
