/** POST /v1/chat/completions: the model's chat template, then the same generation as completions. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import type { TextEvent } from "../engine/text.ts";
import type { ChatMessage, Tokenizer } from "../models/tokenizer.ts";
import { answerRoute, generationHead, streamAnswer } from "./answer.ts";
import { type Choice, type ChoiceEvent, Generation } from "./generation.ts";
import { grammarOf, responseFormatSchema } from "./response_format.ts";
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
import { tokenLogprob, tokenLogprobSchema } from "./token_logprob.ts";

const partSchema = z.object({ type: z.literal("text"), text: z.string() });
export const messageSchema = z.object({
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
  response_format: responseFormatSchema.nullish(),
  tools: z.array(z.unknown()).nullish(),
}).openapi("ChatCompletionRequest");
type Body = z.infer<typeof requestSchema>;

const logprobsSchema = z.object({
  content: z.array(tokenLogprobSchema),
  refusal: z.null(),
});
type Logprobs = z.infer<typeof logprobsSchema>;
const finishReason = z.enum(["stop", "length"]);

const responseSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string().openapi({ description: "The version of the model that answers" }),
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

const route = answerRoute({
  path: "/v1/chat/completions",
  summary: "Answer a conversation",
  body: requestSchema,
  answer: responseSchema,
  description: "The answer; with `stream`, server-sent chat.completion.chunk events, then [DONE]",
});

export function chatCompletions(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    checkBody(body);
    const generation = await Generation.start((model) => readChoices(body, model), {
      operation: "chat",
      model: body.model,
      request: c.req.raw,
      services,
    });
    const chat = new Chat(body, generation);
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
  if (body.tools?.length) refuse("tools", 'Cannot use "tools": tool calls are not supported');
  if (typeof body.top_logprobs === "number" && !body.logprobs) {
    refuse("top_logprobs", 'Cannot use "top_logprobs" without "logprobs": true');
  }
}

/** Text parts join; the newer name of the system role goes by the one templates know. */
export const toMessages = (messages: Body["messages"]): ChatMessage[] =>
  messages.map((m) => ({
    ...m.name ? { name: m.name } : {},
    role: m.role === "developer" ? "system" : m.role,
    content: Array.isArray(m.content) ? m.content.map((p) => p.text).join("") : m.content ?? "",
  }));

function readChoices(body: Body, model: OpenedModel): Choice[] {
  const tokenizer = needTokenizer(model);
  const text = tokenizer.renderChat(toMessages(body.messages), { addGenerationPrompt: true });
  const promptIds = tokenizer.encode(text, { addSpecialTokens: false }); // templates write them
  const { contextLength, vocabSize } = model.engine;
  const asked = body.max_completion_tokens ?? body.max_tokens ?? null;
  const maxTokens = fitContext(promptIds.length, asked, { contextLength, param: "messages" });
  const seed = requestSeed(body);
  const grammar = grammarOf(body.response_format, model);
  return Array.from({ length: body.n ?? 1 }, (_, i) => ({
    promptIndex: 0,
    promptText: text,
    promptIds,
    maxTokens,
    stopIds: body.ignore_eos && !grammar ? [] : stopIdsOf(model), // a grammar ends where it must
    stop: stopStrings(body),
    sampling: samplingOptions(body, { vocabSize, seed: seed + i }),
    logprobs: body.logprobs ? body.top_logprobs ?? 0 : null,
    ...grammar ? { grammar } : {},
  }));
}

interface Delta {
  text: string;
  logprobs: Logprobs["content"];
  ids: number[];
  finish: "stop" | "length" | null;
}

class Chat {
  readonly #head: ReturnType<typeof generationHead>;
  readonly #tokenizer: Tokenizer;

  constructor(readonly body: Body, readonly generation: Generation) {
    this.#head = generationHead("chatcmpl", body.model, generation);
    this.#tokenizer = needTokenizer(generation.model);
  }

  async whole(): Promise<z.infer<typeof responseSchema>> {
    const answers = this.generation.choices.map((): Delta => ({
      text: "",
      logprobs: [],
      ids: [],
      finish: null,
    }));
    for await (const { index, event } of this.generation.events()) {
      if (event.type === "prompt") continue;
      const delta = this.#delta(event);
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
    const head = { ...this.#head, object: "chat.completion.chunk" };
    return streamAnswer(this.generation, { head, body: this.body, parts: (event) => this.#parts(event) });
  }
  #parts({ index, event }: ChoiceEvent): { finish_reason: Delta["finish"] }[] {
    const choice = (delta: object, more: object = {}) => ({
      index,
      delta,
      logprobs: null,
      finish_reason: null,
      ...more,
    });
    if (event.type === "prompt") return [choice({ role: "assistant", content: "" })];
    const { text, logprobs, ids, finish } = this.#delta(event);
    const content = choice({ content: text }, {
      logprobs: logprobs.length ? { content: logprobs, refusal: null } : null,
      ...ids.length ? { token_ids: ids } : {},
    });
    const silent = text === "" && !logprobs.length && !ids.length;
    return [...silent ? [] : [content], ...finish ? [choice({}, { finish_reason: finish })] : []];
  }

  #delta(event: Exclude<TextEvent, { type: "prompt" }>): Delta {
    return {
      text: event.text,
      logprobs: this.body.logprobs ? event.tokens.map((t) => tokenLogprob(t, this.#tokenizer)) : [],
      ids: this.body.return_token_ids ? event.tokens.map((t) => t.id) : [],
      finish: event.type === "end" ? event.reason : null,
    };
  }
}
