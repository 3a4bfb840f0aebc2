/** The messages of a conversation, as requests have them and as chat templates get them. */
import { z } from "@hono/zod-openapi";
import { deeperThan } from "../engine/grammar/json_schema.ts";
import { OatmillError } from "../errors.ts";
import { MOST_LEVELS } from "../models/tools/json_reader.ts";
import type { ChatMessage, MessageToolCall } from "../models/chat_templates.ts";

/** Most calls of one message. */
const MOST_CALLS = 128;

const partSchema = z.object({ type: z.literal("text"), text: z.string() });
const callSchema = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({
    name: z.string(),
    arguments: z.string().openapi({ description: "JSON, as the model wrote it" }),
  }),
});
export const messageSchema = z.object({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z.union([z.string(), z.array(partSchema)]).nullish(),
  name: z.string().nullish(),
  tool_calls: z.array(callSchema).max(MOST_CALLS).nullish().openapi({ description: "Of the assistant" }),
  tool_call_id: z.string().nullish().openapi({ description: "Of a tool: the call that it answers" }),
});
type Message = z.infer<typeof messageSchema>;

/**
 * Text parts join; the newer name of the system role goes by the one templates know; arguments are objects, which is what
 * templates expect.
 * @throws {OatmillError} invalid_request for a tool's message without its call, and arguments that are no JSON object
 */
export const toMessages = (messages: readonly Message[]): ChatMessage[] =>
  messages.map((m, i) => ({
    ...m.name ? { name: m.name } : {},
    role: m.role === "developer" ? "system" : m.role,
    content: Array.isArray(m.content) ? m.content.map((p) => p.text).join("") : m.content ?? "",
    ...m.role === "assistant" && m.tool_calls?.length ? { tool_calls: toCalls(m.tool_calls, i) } : {},
    ...m.role === "tool" ? { tool_call_id: callIdOf(m, i) } : {},
  }));

const toCalls = (calls: NonNullable<Message["tool_calls"]>, message: number): MessageToolCall[] =>
  calls.map((call, i) => ({
    ...call,
    function: {
      name: call.function.name,
      arguments: toObject(call.function.arguments, `messages.${message}.tool_calls.${i}.function.arguments`),
    },
  }));

/** A call's arguments. No text at all stands for none. @throws {OatmillError} invalid_request: no JSON object */
export function toObject(text: string, param: string): Record<string, unknown> {
  const value = parsed(text.trim() || "{}");
  if (typeof value !== "object" || value === null || Array.isArray(value) || deeperThan(value, MOST_LEVELS)) {
    const message =
      `Invalid value of "${param}": must be a JSON object, nested at most ${MOST_LEVELS} levels deep`;
    throw new OatmillError("invalid_request", message, param);
  }
  return value as Record<string, unknown>;
}
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function callIdOf({ tool_call_id: id }: Message, message: number): string {
  if (typeof id === "string") return id;
  const param = `messages.${message}.tool_call_id`;
  throw new OatmillError("invalid_request", `Missing "${param}": a tool's message names its call`, param);
}
