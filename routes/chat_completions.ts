/** POST /v1/chat/completions: the model's chat template, then the same generation as completions. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import type { TextEvent, TextToken } from "../engine/text.ts";
import type { ChatMessage, Tokenizer } from "../models/tokenizer.ts";
import { tokenString } from "./completions.ts";
import { errorResponse, toHttpError } from "./errors.ts";
import { dataEvent, eventStream } from "./event_stream.ts";
import { type Choice, type ChoiceEvent, Generation } from "./generation.ts";
import {
  checkFields,
  fitContext,
  requestSeed,
  samplingFields,
  samplingOptions,
  stopStrings,
  timingsSchema,
  usageSchema,
} from "./sampling.ts";
import { resource, type Services } from "./services.ts";

const partSchema = z.object({ type: z.literal("text"), text: z.string() });
const messageSchema = z.object({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z.union([z.string(), z.array(partSchema)]).nullish(),
  name: z.string().nullish(),
});
const requestSchema = z.object({
  ...samplingFields,
  messages: z.array(messageSchema).min(1),
  max_completion_tokens: z.int().min(0).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  response_format: z.looseObject({ type: z.string() }).nullish(),
  tools: z.array(z.unknown()).nullish(),
}).openapi("ChatCompletionRequest");
type Body = z.infer<typeof requestSchema>;

const tokenLogprobSchema = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
});
const logprobsSchema = z.object({
  content: z.array(tokenLogprobSchema.extend({ top_logprobs: z.array(tokenLogprobSchema) })),
  refusal: z.null(),
});
type Logprobs = z.infer<typeof logprobsSchema>;
const finishReason = z.enum(["stop", "length"]);

const responseSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
    logprobs: logprobsSchema.nullable(),
    finish_reason: finishReason,
    token_ids: z.array(z.int()).optional(),
  })),
  usage: usageSchema,
  timings: timingsSchema,
}).openapi("ChatCompletion");

const route = createRoute({
  method: "post",
  path: "/v1/chat/completions",
  summary: "Answer a conversation",
  request: { body: { required: true, content: { "application/json": { schema: requestSchema } } } },
  responses: {
    200: {
      description: "The answer; with `stream`, server-sent chat.completion.chunk events, then [DONE]",
      content: {
        "application/json": { schema: responseSchema },
        "text/event-stream": { schema: z.string() },
      },
    },
    default: errorResponse,
  },
});

export function chatCompletions(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    checkBody(body);
    const lease = await services.registry.acquire(body.model);
    const chat = await Chat.start(body, { lease, services, request: c.req.raw });
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    if (body.stream) return chat.stream() as any;
    return c.json(await chat.whole(), 200);
  });
  return app;
}

function checkBody(body: Body): void {
  checkFields(body);
  const refuse = (param: string, message: string) => {
    throw new OatmillError("invalid_request", message, param);
  };
  const format = body.response_format?.type;
  if (format !== undefined && format !== "text") {
    refuse(
      "response_format",
      `Cannot answer in the format ${JSON.stringify(format)}: only "text" is supported`,
    );
  }
  if (body.tools?.length) refuse("tools", 'Cannot use "tools": tool calls are not supported');
  if (typeof body.top_logprobs === "number" && !body.logprobs) {
    refuse("top_logprobs", 'Cannot use "top_logprobs" without "logprobs": true');
  }
}

/** Text parts join; the newer name of the system role goes by the one templates know. */
const toMessages = (body: Body): ChatMessage[] =>
  body.messages.map((m) => ({
    ...m.name ? { name: m.name } : {},
    role: m.role === "developer" ? "system" : m.role,
    content: Array.isArray(m.content) ? m.content.map((p) => p.text).join("") : m.content ?? "",
  }));

function readChoices(body: Body, tokenizer: Tokenizer, model: OpenedModel): Choice[] {
  const text = tokenizer.renderChat(toMessages(body), { addGenerationPrompt: true });
  const promptIds = tokenizer.encode(text, { addSpecialTokens: false }); // templates write them
  const { contextLength, vocabSize } = model.engine;
  const asked = body.max_completion_tokens ?? body.max_tokens ?? null;
  const maxTokens = fitContext(promptIds.length, asked, { contextLength, param: "messages" });
  const seed = requestSeed(body);
  return Array.from({ length: body.n ?? 1 }, (_, i) => ({
    promptIndex: 0,
    promptIds,
    maxTokens,
    stopIds: body.ignore_eos ? [] : stopIdsOf(model),
    stop: stopStrings(body),
    sampling: samplingOptions(body, { vocabSize, seed: seed + i }),
    logprobs: body.logprobs ? body.top_logprobs ?? 0 : null,
  }));
}

interface Delta {
  text: string;
  logprobs: Logprobs["content"];
  ids: number[];
  finish: "stop" | "length" | null;
}

class Chat {
  readonly #head: { id: string; created: number; model: string };
  #first: ChoiceEvent | null = null;

  private constructor(readonly body: Body, readonly tokenizer: Tokenizer, readonly generation: Generation) {
    this.#head = {
      id: `chatcmpl-${crypto.randomUUID()}`,
      created: Math.floor(Date.now() / 1000),
      model: body.model,
    };
  }
  static async start(
    body: Body,
    options: {
      lease: Awaited<ReturnType<Services["registry"]["acquire"]>>;
      services: Services;
      request: Request;
    },
  ): Promise<Chat> {
    const { lease, services, request } = options;
    try {
      const tokenizer = needTokenizer(lease.model);
      const choices = readChoices(body, tokenizer, lease.model);
      const generation = new Generation("chat", choices, { lease, telemetry: services.telemetry, request });
      const chat = new Chat(body, tokenizer, generation);
      // What an engine refuses (full queue) must become a status: the first event comes before the answer begins.
      chat.#first = (await generation.events().next()).value ?? null;
      return chat;
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
  }
  async *#deltas(): AsyncGenerator<{ index: number; delta: Delta }, void, void> {
    const { generation } = this;
    if (this.#first) yield* this.#delta(this.#first);
    for await (const event of generation.events()) yield* this.#delta(event);
  }
  *#delta({ index, event }: ChoiceEvent): Generator<{ index: number; delta: Delta }, void, void> {
    if (event.type === "prompt") return;
    const logprobs = this.body.logprobs ? event.tokens.map((t) => this.#logprob(t)) : [];
    const ids = this.body.return_token_ids ? event.tokens.map((t) => t.id) : [];
    yield { index, delta: { text: event.text, logprobs, ids, finish: finishOf(event) } };
  }

  async whole(): Promise<z.infer<typeof responseSchema>> {
    const answers = this.generation.choices.map((): Delta => ({
      text: "",
      logprobs: [],
      ids: [],
      finish: null,
    }));
    for await (const { index, delta } of this.#deltas()) {
      answers[index].text += delta.text;
      answers[index].logprobs.push(...delta.logprobs);
      answers[index].ids.push(...delta.ids);
      answers[index].finish = delta.finish;
    }
    return {
      ...this.#head,
      object: "chat.completion",
      choices: answers.map((a, index) => ({
        index,
        message: { role: "assistant", content: a.text, refusal: null },
        logprobs: this.body.logprobs ? { content: a.logprobs, refusal: null } : null,
        finish_reason: a.finish ?? "stop",
        ...this.body.return_token_ids ? { token_ids: a.ids } : {},
      })),
      usage: this.generation.usage(),
      timings: this.generation.timings(),
    };
  }

  stream(): Response {
    return eventStream(this.#chunks(), () => this.generation.leave());
  }
  async *#chunks(): AsyncGenerator<string, void, void> {
    const withUsage = this.body.stream_options?.include_usage === true;
    const usage = withUsage ? { usage: null } : {};
    const chunk = (choices: unknown[], more: object = {}) =>
      dataEvent({ ...this.#head, object: "chat.completion.chunk", choices, ...usage, ...more });
    const choice = (index: number, delta: object, more: object = {}) => ({
      index,
      delta,
      logprobs: null,
      finish_reason: null,
      ...more,
    });
    let open = this.generation.choices.length;
    try {
      for (let i = 0; i < open; i++) yield chunk([choice(i, { role: "assistant", content: "" })]);
      for await (const { index, delta } of this.#deltas()) {
        const logprobs = delta.logprobs.length ? { content: delta.logprobs, refusal: null } : null;
        const ids = delta.ids.length ? { token_ids: delta.ids } : {};
        if (delta.text !== "" || logprobs || delta.ids.length) {
          yield chunk([choice(index, { content: delta.text }, { logprobs, ...ids })]);
        }
        if (delta.finish === null) continue;
        const more = --open === 0 ? { timings: this.generation.timings() } : {};
        yield chunk([choice(index, {}, { finish_reason: delta.finish })], more);
      }
      if (withUsage) yield chunk([], { usage: this.generation.usage() });
      yield dataEvent("[DONE]");
    } catch (error) {
      if (!this.generation.left) yield dataEvent(toHttpError(error).body);
    }
  }

  #logprob(token: TextToken): Logprobs["content"][number] {
    const entry = (id: number, logprob: number) => ({
      token: tokenString(this.tokenizer, id),
      logprob,
      bytes: [...this.tokenizer.tokenBytes(id)],
    });
    const { logprob = 0, top = [] } = token.logprobs ?? {};
    return { ...entry(token.id, logprob), top_logprobs: top.map(([id, value]) => entry(id, value)) };
  }
}

const finishOf = (event: TextEvent): "stop" | "length" | null => event.type === "end" ? event.reason : null;
