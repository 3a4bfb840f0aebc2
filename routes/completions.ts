/** POST /v1/completions: text after text. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import type { TextEvent, TextToken } from "../engine/text.ts";
import type { TokenLogprobs } from "../engine/types.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { errorResponse, toHttpError } from "./errors.ts";
import { dataEvent, eventStream } from "./event_stream.ts";
import { type Choice, type ChoiceEvent, Generation } from "./generation.ts";
import {
  checkFields,
  fitContext,
  MAX_CHOICES,
  requestSeed,
  samplingFields,
  samplingOptions,
  stopStrings,
  timingsSchema,
  usageSchema,
} from "./sampling.ts";
import { resource, type Services } from "./services.ts";

/** OpenAI's default. */
const DEFAULT_MAX_TOKENS = 16;

const tokenIds = z.array(z.int().min(0)).min(1);
const requestSchema = z.object({
  ...samplingFields,
  prompt: z.union([z.string(), z.array(z.string()).min(1), tokenIds, z.array(tokenIds).min(1)]),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(5).nullish(),
  best_of: z.int().nullish(),
  suffix: z.string().nullish(),
}).openapi("CompletionRequest");
type Body = z.infer<typeof requestSchema>;

const logprobsSchema = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullable(),
  text_offset: z.array(z.int()),
});
type Logprobs = z.infer<typeof logprobsSchema>;

const choiceSchema = z.object({
  index: z.int(),
  text: z.string(),
  logprobs: logprobsSchema.nullable(),
  finish_reason: z.enum(["stop", "length"]).nullable(),
  token_ids: z.array(z.int()).optional(),
});
type ChoiceBody = z.infer<typeof choiceSchema>;

const responseSchema = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int(),
  model: z.string(),
  choices: z.array(choiceSchema),
  usage: usageSchema.nullish(),
  timings: timingsSchema.optional(),
}).openapi("Completion");

const route = createRoute({
  method: "post",
  path: "/v1/completions",
  summary: "Continue a text",
  request: { body: { required: true, content: { "application/json": { schema: requestSchema } } } },
  responses: {
    200: {
      description: "The completion; with `stream`, server-sent events of the same shape, then [DONE]",
      content: {
        "application/json": { schema: responseSchema },
        "text/event-stream": { schema: z.string() },
      },
    },
    default: errorResponse,
  },
});

export function completions(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    checkBody(body);
    const lease = await services.registry.acquire(body.model);
    const completion = await Completion.start(body, { lease, services, request: c.req.raw });
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    if (body.stream) return completion.stream() as any;
    return c.json(await completion.whole(), 200);
  });
  return app;
}

function checkBody(body: Body): void {
  checkFields(body);
  if (body.suffix) {
    throw new OatmillError("invalid_request", 'Cannot use "suffix": no model here fills in', "suffix");
  }
  if (body.best_of && body.best_of !== (body.n ?? 1)) {
    throw new OatmillError("invalid_request", 'Cannot use "best_of" other than "n"', "best_of");
  }
}

interface Prompt {
  readonly ids: readonly number[];
  readonly text: string;
}

/** The prompts of a body as ids, each with the text that `echo` repeats. */
function readPrompts(body: Body, model: OpenedModel): Prompt[] {
  const { prompt } = body;
  const list = (typeof prompt === "string" || typeof prompt[0] === "number" ? [prompt] : prompt) as (
    | string
    | number[]
  )[];
  if (list.length * (body.n ?? 1) > MAX_CHOICES) {
    throw new OatmillError(
      "invalid_request",
      `Cannot make more than ${MAX_CHOICES} choices in one request`,
      "prompt",
    );
  }
  return list.map((p) => {
    if (typeof p === "string") return { ids: orStart(needTokenizer(model).encode(p), model), text: p };
    const outside = p.find((id) => id >= model.engine.vocabSize);
    if (outside === undefined) return { ids: p, text: body.echo ? model.tokenizer?.decode(p) ?? "" : "" };
    const message = `Invalid value of "prompt": token ${outside} is not below ${model.engine.vocabSize}`;
    throw new OatmillError("invalid_request", message, "prompt");
  });
}

/** An empty prompt begins as every text does. */
function orStart(ids: number[], model: OpenedModel): number[] {
  if (ids.length > 0) return ids;
  const start = model.spec.bosId ?? model.spec.eosIds[0];
  if (start !== undefined) return [start];
  throw new OatmillError(
    "invalid_request",
    'Invalid value of "prompt": this model needs at least one token',
    "prompt",
  );
}

function readChoices(body: Body, prompts: readonly Prompt[], model: OpenedModel): Choice[] {
  const n = body.n ?? 1;
  const seed = requestSeed(body);
  const { contextLength, vocabSize } = model.engine;
  return prompts.flatMap(({ ids }, promptIndex) => {
    const left = Math.min(DEFAULT_MAX_TOKENS, Math.max(1, contextLength - ids.length));
    const maxTokens = fitContext(ids.length, body.max_tokens ?? left, { contextLength, param: "prompt" });
    return Array.from({ length: n }, (_, i): Choice => ({
      promptIndex,
      promptIds: ids,
      maxTokens,
      stopIds: body.ignore_eos ? [] : stopIdsOf(model),
      stop: stopStrings(body),
      sampling: samplingOptions(body, { vocabSize, seed: seed + i }),
      logprobs: body.logprobs ?? null,
      promptLogprobs: Boolean(body.echo) && typeof body.logprobs === "number",
    }));
  });
}

class Completion {
  readonly #head: { id: string; object: "text_completion"; created: number; model: string };

  private constructor(
    readonly body: Body,
    readonly prompts: readonly Prompt[],
    readonly tokenizer: Tokenizer | null,
    readonly generation: Generation,
  ) {
    const created = Math.floor(Date.now() / 1000);
    this.#head = { id: `cmpl-${crypto.randomUUID()}`, object: "text_completion", created, model: body.model };
  }

  static async start(
    body: Body,
    options: {
      lease: Awaited<ReturnType<Services["registry"]["acquire"]>>;
      services: Services;
      request: Request;
    },
  ): Promise<Completion> {
    const { lease, services, request } = options;
    try {
      const prompts = readPrompts(body, lease.model);
      const choices = readChoices(body, prompts, lease.model);
      const generation = new Generation("text_completion", choices, {
        lease,
        telemetry: services.telemetry,
        request,
      });
      const completion = new Completion(body, prompts, lease.model.tokenizer, generation);
      // What an engine refuses (full queue) must become a status: the first event comes before the answer begins.
      completion.#first = (await generation.events().next()).value ?? null;
      return completion;
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
  }
  #first: ChoiceEvent | null = null;
  async *#events(): AsyncGenerator<ChoiceEvent, void, void> {
    if (this.#first) yield this.#first;
    yield* this.generation.events();
  }

  async whole(): Promise<z.infer<typeof responseSchema>> {
    const choices = this.generation.choices.map((_, index): ChoiceBody => this.#emptyChoice(index));
    for await (const { index, event } of this.#events()) {
      const part = this.#part(index, event);
      if (part) append(choices[index], part);
    }
    return { ...this.#head, choices, usage: this.generation.usage(), timings: this.generation.timings() };
  }

  stream(): Response {
    return eventStream(this.#chunks(), () => this.generation.leave());
  }
  async *#chunks(): AsyncGenerator<string, void, void> {
    const withUsage = this.body.stream_options?.include_usage === true;
    const chunk = (choices: ChoiceBody[], more: object = {}) =>
      dataEvent({ ...this.#head, choices, ...withUsage ? { usage: null } : {}, ...more });
    let open = this.generation.choices.length;
    try {
      for await (const { index, event } of this.#events()) {
        const part = this.#part(index, event);
        if (event.type === "end") open--;
        const more = open === 0 ? { timings: this.generation.timings() } : {};
        if (part && !isSilent(part)) yield chunk([part], more);
      }
      if (withUsage) yield chunk([], { usage: this.generation.usage() });
      yield dataEvent("[DONE]");
    } catch (error) {
      if (!this.generation.left) yield dataEvent(toHttpError(error).body);
    }
  }

  #emptyChoice(index: number): ChoiceBody {
    const logprobs = this.body.logprobs === null || this.body.logprobs === undefined
      ? null
      : { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    const ids = this.body.return_token_ids ? { token_ids: [] } : {};
    return { index, text: "", logprobs, finish_reason: null, ...ids };
  }

  /** What an event adds to its choice. */
  #part(index: number, event: TextEvent): ChoiceBody | null {
    const part = this.#emptyChoice(index);
    const prompt = this.prompts[this.generation.choices[index].promptIndex];
    if (event.type === "prompt") {
      if (!this.body.echo) return null;
      part.text = prompt.text;
      if (part.logprobs) this.#addPrompt(part.logprobs, prompt, event.logprobs ?? []);
      return part;
    }
    part.text = event.text;
    part.token_ids?.push(...event.tokens.map((t) => t.id));
    if (part.logprobs) {
      const before = this.body.echo ? prompt.text.length : 0;
      for (const t of event.tokens) this.#addToken(part.logprobs, t, before);
    }
    if (event.type === "end") part.finish_reason = event.reason;
    return part;
  }
  #addPrompt(logprobs: Logprobs, prompt: Prompt, values: readonly (TokenLogprobs | null)[]): void {
    const stream = this.tokenizer?.stream();
    let end = 0;
    const offsets = prompt.ids.map((id) => {
      const offset = end;
      end += stream?.push(id).length ?? 0;
      return offset;
    });
    // What encoding put before the text (BOS) has no place in it.
    const before = Math.max(0, end - prompt.text.length);
    prompt.ids.forEach((id, i) => {
      const offset = Math.max(0, offsets[i] - before);
      this.#addToken(logprobs, { id, logprobs: values[i] ?? null, offset }, 0);
    });
  }
  #addToken(logprobs: Logprobs, token: TextToken, offset: number): void {
    const text = (id: number) => this.tokenizer ? tokenString(this.tokenizer, id) : String(id);
    logprobs.tokens.push(text(token.id));
    logprobs.token_logprobs.push(token.logprobs?.logprob ?? null);
    logprobs.top_logprobs!.push(
      token.logprobs && Object.fromEntries(token.logprobs.top.map(([id, value]) => [text(id), value])),
    );
    logprobs.text_offset.push(offset + token.offset);
  }
}

/** A token as text; as `bytes:\xf0\x9f` (OpenAI's way) when it is a part of a character. */
export function tokenString(tokenizer: Tokenizer, id: number): string {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return "bytes:" + [...bytes].map((b) => `\\x${b.toString(16).padStart(2, "0")}`).join("");
  }
}

const isSilent = (part: ChoiceBody): boolean =>
  part.text === "" && part.finish_reason === null && !part.logprobs?.tokens.length && !part.token_ids?.length;

function append(choice: ChoiceBody, part: ChoiceBody): void {
  choice.text += part.text;
  choice.finish_reason = part.finish_reason;
  choice.token_ids?.push(...part.token_ids ?? []);
  if (!choice.logprobs || !part.logprobs) return;
  choice.logprobs.tokens.push(...part.logprobs.tokens);
  choice.logprobs.token_logprobs.push(...part.logprobs.token_logprobs);
  choice.logprobs.top_logprobs!.push(...part.logprobs.top_logprobs!);
  choice.logprobs.text_offset.push(...part.logprobs.text_offset);
}
