/** The response object of POST /v1/responses: its schema, and its states from begun to ended. */
import { z } from "@hono/zod-openapi";
import type { TextEvent } from "../../engine/text.ts";
import type { Tokenizer } from "../../models/tokenizer.ts";
import { toHttpError } from "../errors.ts";
import type { usageSchema } from "../sampling.ts";
import { type TokenLogprob, tokenLogprob, tokenLogprobSchema } from "../token_logprob.ts";
import { type Body, formatSchema, metadataSchema, wantsLogprobs } from "./request.ts";

const partSchema = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.object({})).max(0),
  logprobs: z.array(tokenLogprobSchema),
});
export type TextPart = z.infer<typeof partSchema>;

const itemSchema = z.object({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  status: z.enum(["in_progress", "completed", "incomplete"]),
  content: z.array(partSchema),
});
export type MessageItem = z.infer<typeof itemSchema>;

const responseUsageSchema = z.object({
  input_tokens: z.int(),
  input_tokens_details: z.object({
    cached_tokens: z.int(),
    cache_write_tokens: z.int().openapi({ description: "0: nobody pays for keeping a prefix" }),
  }),
  output_tokens: z.int(),
  output_tokens_details: z.object({ reasoning_tokens: z.int() }),
  total_tokens: z.int(),
});

export const responseSchema = z.object({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int(),
  completed_at: z.int().nullable(),
  status: z.enum(["in_progress", "completed", "incomplete", "failed"]),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.literal("max_output_tokens") }).nullable(),
  model: z.string(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable(),
  output: z.array(itemSchema),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.null(),
  background: z.literal(false),
  reasoning: z.object({ effort: z.null(), summary: z.null() }),
  store: z.literal(false),
  temperature: z.number(),
  top_p: z.number(),
  top_logprobs: z.int(),
  text: z.object({ format: formatSchema }),
  tool_choice: z.enum(["auto", "none"]),
  tools: z.array(z.object({})).max(0),
  truncation: z.enum(["auto", "disabled"]),
  usage: responseUsageSchema.nullable(),
  user: z.string().nullable(),
  metadata: metadataSchema,
}).openapi("Response");
export type ResponseBody = z.infer<typeof responseSchema>;

const secondsNow = (): number => Math.floor(Date.now() / 1000);
const newId = (prefix: string): string => `${prefix}_${crypto.randomUUID().replaceAll("-", "")}`;

/** A response that has begun: no output yet, and what the request said or left to defaults. */
function begun(body: Body): ResponseBody {
  return {
    id: newId("resp"),
    object: "response",
    created_at: secondsNow(),
    completed_at: null,
    status: "in_progress",
    error: null,
    incomplete_details: null,
    model: body.model,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    output: [],
    parallel_tool_calls: true,
    previous_response_id: null,
    background: false,
    reasoning: { effort: null, summary: null },
    store: false,
    temperature: body.temperature ?? 1,
    top_p: body.top_p ?? 1,
    top_logprobs: body.top_logprobs ?? 0,
    text: { format: body.text?.format ?? { type: "text" } },
    tool_choice: body.tool_choice === "none" ? "none" : "auto",
    tools: [],
    truncation: body.truncation ?? "disabled",
    usage: null,
    user: body.user ?? null,
    metadata: body.metadata ?? {},
  };
}

export const toResponseUsage = (usage: z.infer<typeof usageSchema>): z.infer<typeof responseUsageSchema> => ({
  input_tokens: usage.prompt_tokens,
  input_tokens_details: {
    cached_tokens: usage.prompt_tokens_details.cached_tokens,
    cache_write_tokens: 0,
  },
  output_tokens: usage.completion_tokens,
  output_tokens_details: { reasoning_tokens: 0 },
  total_tokens: usage.total_tokens,
});

/** What one event of the engine adds to the text. */
export interface Delta {
  readonly text: string;
  readonly logprobs: TokenLogprob[];
}

/** One response as it grows: its one message of one text part. */
export class GrowingResponse {
  readonly #begun: ResponseBody;
  readonly itemId = newId("msg");
  readonly #withLogprobs: boolean;
  readonly #logprobs: TokenLogprob[] = [];
  #text = "";
  #reason: "stop" | "length" = "stop";

  constructor(body: Body, readonly tokenizer: Tokenizer) {
    this.#begun = begun(body);
    this.#withLogprobs = wantsLogprobs(body);
  }

  add(event: Exclude<TextEvent, { type: "prompt" }>): Delta {
    const logprobs = this.#withLogprobs ? event.tokens.map((t) => tokenLogprob(t, this.tokenizer)) : [];
    this.#text += event.text;
    this.#logprobs.push(...logprobs);
    if (event.type === "end") this.#reason = event.reason;
    return { text: event.text, logprobs };
  }

  part(): TextPart {
    return { type: "output_text", text: this.#text, annotations: [], logprobs: [...this.#logprobs] };
  }
  item(status: MessageItem["status"]): MessageItem {
    const content = status === "in_progress" ? [] : [this.part()];
    return { id: this.itemId, type: "message", role: "assistant", status, content };
  }
  inProgress(): ResponseBody {
    return this.#begun;
  }
  /** After the last event. */
  ended(usage: z.infer<typeof usageSchema>): ResponseBody {
    const status = this.endStatus;
    return {
      ...this.#begun,
      status,
      completed_at: status === "completed" ? secondsNow() : null,
      incomplete_details: status === "completed" ? null : { reason: "max_output_tokens" },
      output: [this.item(status)],
      usage: toResponseUsage(usage),
    };
  }
  get endStatus(): "completed" | "incomplete" {
    return this.#reason === "length" ? "incomplete" : "completed";
  }
  /** With what there is of the text. */
  failed(error: unknown): ResponseBody {
    const { code, message } = toHttpError(error).body.error;
    return {
      ...this.#begun,
      status: "failed",
      error: { code: code === "rate_limit_exceeded" ? code : "server_error", message },
      output: this.#text === "" ? [] : [this.item("incomplete")],
    };
  }
}
