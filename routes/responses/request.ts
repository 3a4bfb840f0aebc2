/** The request of POST /v1/responses: its fields, what this server does not do, and the choice that they make. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { type OpenedModel, stopIdsOf } from "../../engine/open_model.ts";
import type { Choice } from "../generation.ts";
import { type FormatPlace, grammarOf, type ResponseFormat } from "../response_format.ts";
import {
  checkFields,
  fitContext,
  requestSeed,
  samplingFields,
  samplingOptions,
  stopStrings,
} from "../sampling.ts";
import { toolGrammarOf } from "../tool_grammar.ts";
import { needToolSyntax, templateTools, type ToolUse } from "../tools.ts";
import { inputSchema, readConversation, renderConversation } from "./input.ts";
import { toolFields } from "./tools.ts";

// Of completions alone; the rest are sampling fields, most of them extensions here.
const { n: _, max_tokens: __, stream_options: ___, return_token_ids: ____, ...sampling } = samplingFields;

/** What `include` adds log-probabilities by. */
const INCLUDE_LOGPROBS = "message.output_text.logprobs";
const FORMAT_PLACE: FormatPlace = { param: "text.format", schemaParam: "text.format.schema" };

export const formatSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("text") }),
  z.object({ type: z.literal("json_object") }),
  z.object({
    type: z.literal("json_schema"),
    name: z.string().min(1).max(64),
    schema: z.record(z.string(), z.unknown()),
    description: z.string().nullish(),
    strict: z.boolean().nullish().openapi({
      description: "Refuse a schema that has keywords no grammar can enforce; default: leave these out",
    }),
  }),
], { error: 'expected "text", "json_object" or "json_schema"' }).openapi("ResponseTextFormat");

export const metadataSchema = z.record(z.string().max(64), z.string().max(512))
  .refine((pairs) => Object.keys(pairs).length <= 16, "at most 16 pairs are allowed");

export const requestSchema = z.object({
  ...sampling,
  ...toolFields,
  input: inputSchema,
  instructions: z.string().nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  text: z.object({ format: formatSchema.nullish() }).nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  include: z.array(z.string()).nullish().openapi({
    description: `"${INCLUDE_LOGPROBS}" adds log-probabilities; nothing else is there to include`,
  }),
  truncation: z.enum(["auto", "disabled"]).nullish().openapi({
    description: "auto: drop the oldest messages that do not fit the context; default: refuse",
  }),
  metadata: metadataSchema.nullish(),
  user: z.string().nullish(),
  store: z.boolean().nullish().openapi({ description: "Responses are never stored: true is refused" }),
  previous_response_id: z.string().nullish().openapi({ description: "Refused: responses are not stored" }),
  conversation: z.unknown().optional().openapi({ description: "Refused: conversations are not stored" }),
  prompt: z.unknown().optional().openapi({ description: "Refused: prompts are not stored" }),
  background: z.boolean().nullish().openapi({ description: "true is refused" }),
}).openapi("ResponseRequest");
export type Body = z.infer<typeof requestSchema>;

const NOT_STORED = "responses are not stored: send the whole conversation as input";

/** Fields that are refused, by when and why. */
const REFUSED: readonly (readonly [field: keyof Body, refused: (value: unknown) => boolean, why: string])[] =
  [
    ["store", (v) => v === true, "responses are not stored: leave it out or send false"],
    ["previous_response_id", Boolean, NOT_STORED],
    ["conversation", Boolean, NOT_STORED],
    ["prompt", Boolean, "there are no stored prompts: send instructions and input"],
    ["background", (v) => v === true, "a response ends with its request"],
  ];

/** @throws {OatmillError} invalid_request for what this server does not do */
export function checkBody(body: Body): void {
  checkFields(body);
  for (const [field, refused, why] of REFUSED) {
    if (refused(body[field])) {
      throw new OatmillError("invalid_request", `Cannot use "${field}": ${why}`, field);
    }
  }
}

export const wantsLogprobs = (body: Body): boolean =>
  Boolean(body.top_logprobs) || Boolean(body.include?.includes(INCLUDE_LOGPROBS));

/**
 * @throws {OatmillError} context_length_exceeded, invalid_chat_template, invalid_tokenizer, invalid_request for a schema
 * that does not do
 */
export async function readChoice(
  body: Body,
  use: ToolUse | null,
  { model, signal }: { readonly model: OpenedModel; readonly signal: AbortSignal },
): Promise<Choice> {
  const { contextLength, vocabSize } = model.engine;
  const asked = body.max_output_tokens ?? null;
  const mostTokens = body.truncation === "auto" ? contextLength - (asked ?? 1) : null;
  const conversation = readConversation(body.input, body.instructions);
  const format = toResponseFormat(body.text?.format);
  const grammar = use
    ? toolGrammarOf(use, { syntax: needToolSyntax(model), format, model, place: FORMAT_PLACE })
    : grammarOf(format, model, FORMAT_PLACE);
  const tools = use ? templateTools(use) : null;
  const prompt = await renderConversation(conversation, model, { mostTokens, tools, signal });
  return {
    promptIndex: 0,
    promptText: prompt.text,
    promptIds: prompt.ids,
    maxTokens: fitContext(prompt.ids.length, asked, { contextLength, param: "input" }),
    stopIds: body.ignore_eos && !grammar ? [] : stopIdsOf(model), // a grammar ends where it must
    stop: stopStrings(body),
    sampling: samplingOptions(body, { vocabSize, seed: requestSeed(body) }),
    logprobs: wantsLogprobs(body) ? body.top_logprobs ?? 0 : null,
    ...grammar ? { grammar } : {},
  };
}

/** `text.format` has in one object what `response_format` has in two. */
function toResponseFormat(format: z.infer<typeof formatSchema> | null | undefined): ResponseFormat | null {
  if (!format) return null;
  if (format.type !== "json_schema") return { type: format.type };
  const { type, ...json_schema } = format;
  return { type, json_schema };
}
