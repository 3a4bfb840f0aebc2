/** The response object of POST /v1/responses: its schema, and its states from begun to ended. */
import { z } from "@hono/zod-openapi";
import type { TextEvent } from "../../engine/text.ts";
import type { Tokenizer } from "../../models/tokenizer.ts";
import { AnswerReader, type CallsOptions, type ToolCallDelta } from "../answer_reader.ts";
import { toHttpError } from "../errors.ts";
import type { usageSchema } from "../sampling.ts";
import { type TokenLogprob, tokenLogprob, tokenLogprobSchema } from "../token_logprob.ts";
import { shownToolFields, shownTools } from "./tools.ts";
import { type Body, formatSchema, metadataSchema, wantsLogprobs } from "./request.ts";

const partSchema = z.object({
  type: z.literal("output_text"),
  text: z.string(),
  annotations: z.array(z.object({})).max(0),
  logprobs: z.array(tokenLogprobSchema),
});
export type TextPart = z.infer<typeof partSchema>;

const messageItemSchema = z.object({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  status: z.enum(["in_progress", "completed", "incomplete"]),
  content: z.array(partSchema),
});
const callItemSchema = z.object({
  id: z.string(),
  type: z.literal("function_call"),
  status: z.enum(["in_progress", "completed", "incomplete"]),
  call_id: z.string(),
  name: z.string(),
  arguments: z.string(),
});
const itemSchema = z.discriminatedUnion("type", [messageItemSchema, callItemSchema]);
export type OutputItem = z.infer<typeof itemSchema>;
type ItemStatus = OutputItem["status"];

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
  previous_response_id: z.null(),
  background: z.literal(false),
  reasoning: z.object({ effort: z.null(), summary: z.null() }),
  store: z.literal(false),
  temperature: z.number(),
  top_p: z.number(),
  top_logprobs: z.int(),
  text: z.object({ format: formatSchema }),
  ...shownToolFields,
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
    previous_response_id: null,
    background: false,
    reasoning: { effort: null, summary: null },
    store: false,
    temperature: body.temperature ?? 1,
    top_p: body.top_p ?? 1,
    top_logprobs: body.top_logprobs ?? 0,
    text: { format: body.text?.format ?? { type: "text" } },
    ...shownTools(body),
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

/** What one event of the engine adds to one item; `opens` comes before anything else of its item. */
export type Delta =
  | { readonly type: "opens"; readonly index: number }
  | {
    readonly type: "text";
    readonly index: number;
    readonly text: string;
    readonly logprobs: TokenLogprob[];
  }
  | { readonly type: "arguments"; readonly index: number; readonly text: string };

interface GrowingCall {
  readonly id: string;
  readonly callId: string;
  readonly name: string;
  arguments: string;
}
type GrowingItem = "message" | GrowingCall;

/** One response as it grows: a message of one text part, and the calls of tools that the text makes. */
export class GrowingResponse {
  readonly #begun: ResponseBody;
  readonly messageId = newId("msg");
  readonly #withLogprobs: boolean;
  readonly #reader: AnswerReader;
  readonly #items: GrowingItem[] = [];
  /** By their numbers among the calls. */
  readonly #calls: { readonly item: GrowingCall; readonly index: number }[] = [];
  readonly #logprobs: TokenLogprob[] = [];
  /** Of tokens whose text is held back, or a call's. */
  #waiting: TokenLogprob[] = [];
  #text = "";
  #reason: "stop" | "length" = "stop";

  /** @param calls null: the text is a message, whatever it says */
  constructor(body: Body, readonly tokenizer: Tokenizer, readonly calls: CallsOptions | null) {
    this.#begun = begun(body);
    this.#withLogprobs = wantsLogprobs(body);
    this.#reader = new AnswerReader(calls);
  }

  /** At once where nothing but a message can come. */
  open(): Delta[] {
    return this.calls ? [] : this.#openMessage();
  }
  add(event: Exclude<TextEvent, { type: "prompt" }>): Delta[] {
    if (this.#withLogprobs) this.#waiting.push(...event.tokens.map((t) => tokenLogprob(t, this.tokenizer)));
    const ended = event.type === "end";
    if (ended) this.#reason = event.reason;
    const { content, calls } = this.#reader.read(event.text, ended);
    const deltas = [...this.#addText(content), ...calls.flatMap((call) => this.#addCall(call))];
    return ended && this.#items.length === 0 ? [...deltas, ...this.#openMessage()] : deltas;
  }
  #addText(text: string): Delta[] {
    const opening = text === "" ? [] : this.#openMessage(), index = this.#items.indexOf("message");
    if (index < 0 || (text === "" && this.#waiting.length === 0)) return opening;
    const logprobs = this.#waiting;
    this.#waiting = [];
    this.#text += text;
    this.#logprobs.push(...logprobs);
    return [...opening, { type: "text", index, text, logprobs }];
  }
  #openMessage(): Delta[] {
    if (this.#items.includes("message")) return [];
    return [{ type: "opens", index: this.#items.push("message") - 1 }];
  }
  #addCall({ index: number, id, function: { name, arguments: text } }: ToolCallDelta): Delta[] {
    const known = this.#calls[number], deltas: Delta[] = [];
    const item = known?.item ?? { id: newId("fc"), callId: id!, name: name!, arguments: "" };
    const index = known?.index ?? this.#items.push(item) - 1;
    if (!known) {
      this.#calls[number] = { item, index };
      deltas.push({ type: "opens", index });
    }
    item.arguments += text;
    return text === "" ? deltas : [...deltas, { type: "arguments", index, text }];
  }

  part(): TextPart {
    return { type: "output_text", text: this.#text, annotations: [], logprobs: [...this.#logprobs] };
  }
  /** @param status in_progress: without what it says */
  item(index: number, status: ItemStatus): OutputItem {
    const item = this.#items[index], empty = status === "in_progress";
    if (item === "message") {
      const content = empty ? [] : [this.part()];
      return { id: this.messageId, type: "message", role: "assistant", status, content };
    }
    const { id, callId: call_id, name } = item;
    return { id, type: "function_call", status, call_id, name, arguments: empty ? "" : item.arguments };
  }
  /** After the last event: the last one is what a limit cuts. */
  items(): OutputItem[] {
    const last = this.#items.length - 1;
    return this.#items.map((_, i) => this.item(i, i === last ? this.endStatus : "completed"));
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
      output: this.items(),
      usage: toResponseUsage(usage),
    };
  }
  get endStatus(): "completed" | "incomplete" {
    return this.#reason === "length" ? "incomplete" : "completed";
  }
  /** With what there is of the text and of calls. */
  failed(error: unknown): ResponseBody {
    const { code, message } = toHttpError(error).body.error;
    const output = this.#items.map((_, i) => this.item(i, "incomplete"));
    return {
      ...this.#begun,
      status: "failed",
      error: { code: code === "rate_limit_exceeded" ? code : "server_error", message },
      output: this.#text === "" ? output.filter((item) => item.type !== "message") : output,
    };
  }
}
