/** POST /v1/completions: text after text. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { encodeTexts } from "../engine/long_texts.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import type { TextToken } from "../engine/text.ts";
import type { TokenLogprobs } from "../engine/types.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { answerRoute, generationHead, streamAnswer } from "./answer.ts";
import { type Choice, type ChoiceEvent, Generation } from "./generation.ts";
import { grammarOf, responseFormatSchema } from "./response_format.ts";
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
import { strings, tokenIds, tokenLists } from "./lists.ts";
import { resource, type Services } from "./services.ts";
import { wholeAnswer } from "./whole_answer.ts";

/** OpenAI's default. */
const DEFAULT_MAX_TOKENS = 16;

const requestSchema = z.object({
  ...samplingFields,
  prompt: z.union([z.string(), strings, tokenIds, tokenLists]),
  echo: z.boolean().nullish(),
  logprobs: z.int().min(0).max(5).nullish(),
  best_of: z.int().nullish(),
  suffix: z.string().nullish(),
  response_format: responseFormatSchema.nullish().openapi({
    description: "Extension: what the text after the prompt must be",
  }),
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
  system_fingerprint: z.string().openapi({ description: "The version of the model that answers" }),
  choices: z.array(choiceSchema),
  usage: usageSchema.nullish(),
  timings: timingsSchema.optional(),
}).openapi("Completion");

const route = answerRoute({
  path: "/v1/completions",
  summary: "Continue a text",
  body: requestSchema,
  answer: responseSchema,
  description: "The completion; with `stream`, server-sent events of the same shape, then [DONE]",
});

export function completions(services: Services): OpenAPIHono {
  const app = resource();
  app.openapi(route, async (c) => {
    const body = c.req.valid("json");
    checkBody(body);
    const generation = await Generation.start((model, signal) => readChoices(body, model, signal), {
      operation: "text_completion",
      model: body.model,
      request: c.req.raw,
      services,
    });
    const completion = new Completion(body, generation);
    const answer = body.stream
      ? completion.stream()
      : wholeAnswer(c, completion.whole(), { leave: () => generation.leave(), ...services.limits });
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    return await answer as any;
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
async function readPrompts(body: Body, model: OpenedModel, signal: AbortSignal): Promise<Prompt[]> {
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
  const texts = list.filter((p) => typeof p === "string");
  const encoded = texts.length > 0
    ? await encodeTexts(model, needTokenizer(model), { texts, signal, param: "prompt" })
    : [];
  return list.map((p) => {
    if (typeof p === "string") return { ids: orStart(encoded.shift()!, model), text: p };
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

async function readChoices(body: Body, model: OpenedModel, signal: AbortSignal): Promise<Choice[]> {
  const n = body.n ?? 1;
  const seed = requestSeed(body);
  const { contextLength, vocabSize } = model.engine;
  const grammar = grammarOf(body.response_format, model);
  return (await readPrompts(body, model, signal)).flatMap(({ ids, text }, promptIndex) => {
    const left = Math.min(DEFAULT_MAX_TOKENS, Math.max(1, contextLength - ids.length));
    const maxTokens = fitContext(ids.length, body.max_tokens ?? left, { contextLength, param: "prompt" });
    return Array.from({ length: n }, (_, i): Choice => ({
      promptIndex,
      promptText: text,
      promptIds: ids,
      maxTokens,
      stopIds: body.ignore_eos && !grammar ? [] : stopIdsOf(model), // a grammar ends where it must
      stop: stopStrings(body),
      sampling: samplingOptions(body, { vocabSize, seed: seed + i }),
      logprobs: body.logprobs ?? null,
      promptLogprobs: Boolean(body.echo) && typeof body.logprobs === "number",
      ...grammar ? { grammar } : {},
    }));
  });
}

class Completion {
  readonly #head: ReturnType<typeof generationHead> & { object: "text_completion" };
  readonly #tokenizer: Tokenizer | null;

  constructor(readonly body: Body, readonly generation: Generation) {
    this.#head = { ...generationHead("cmpl", body.model, generation), object: "text_completion" };
    this.#tokenizer = generation.model.tokenizer;
  }

  async whole(): Promise<z.infer<typeof responseSchema>> {
    const choices = this.generation.choices.map((_, index): ChoiceBody => this.#emptyChoice(index));
    for await (const event of this.generation.events()) {
      const part = this.#part(event);
      if (part) append(choices[event.index], part);
    }
    return { ...this.#head, choices, usage: this.generation.usage(), timings: this.generation.timings() };
  }

  stream(): Response {
    const parts = (event: ChoiceEvent) => {
      const part = this.#part(event);
      return part && !isSilent(part) ? [part] : [];
    };
    return streamAnswer(this.generation, { head: this.#head, body: this.body, parts });
  }

  #emptyChoice(index: number): ChoiceBody {
    const logprobs = this.body.logprobs === null || this.body.logprobs === undefined
      ? null
      : { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    const ids = this.body.return_token_ids ? { token_ids: [] } : {};
    return { index, text: "", logprobs, finish_reason: null, ...ids };
  }

  /** What an event adds to its choice. */
  #part({ index, event }: ChoiceEvent): ChoiceBody | null {
    const part = this.#emptyChoice(index);
    const choice = this.generation.choices[index];
    if (event.type === "prompt") {
      if (!this.body.echo) return null;
      part.text = choice.promptText;
      if (part.logprobs) this.#addPrompt(part.logprobs, choice, event.logprobs ?? []);
      return part;
    }
    part.text = event.text;
    part.token_ids?.push(...event.tokens.map((t) => t.id));
    if (part.logprobs) {
      const before = this.body.echo ? choice.promptText.length : 0;
      for (const t of event.tokens) this.#addToken(part.logprobs, t, before);
    }
    if (event.type === "end") part.finish_reason = event.reason;
    return part;
  }
  #addPrompt(logprobs: Logprobs, choice: Choice, values: readonly (TokenLogprobs | null)[]): void {
    const stream = this.#tokenizer?.stream();
    let end = 0;
    const offsets = choice.promptIds.map((id) => {
      const offset = end;
      end += stream?.push(id).length ?? 0;
      return offset;
    });
    // What encoding put before the text (BOS) has no place in it.
    const before = Math.max(0, end - choice.promptText.length);
    choice.promptIds.forEach((id, i) => {
      const offset = Math.max(0, offsets[i] - before);
      this.#addToken(logprobs, { id, logprobs: values[i] ?? null, offset }, 0);
    });
  }
  #addToken(logprobs: Logprobs, token: TextToken, offset: number): void {
    const text = (id: number) => this.#tokenizer ? tokenString(this.#tokenizer, id) : String(id);
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
