/** `input` (messages, calls, their outputs) and `instructions` of a response as the messages of a chat template. */
import { z } from "@hono/zod-openapi";
import { encodeTexts } from "../../engine/long_texts.ts";
import { needTokenizer, type OpenedModel } from "../../engine/open_model.ts";
import type { ChatMessage } from "../../models/tokenizer.ts";
import { toObject } from "../chat_messages.ts";

const textPart = z.object({ type: z.enum(["input_text", "output_text"]), text: z.string() });
const refusalPart = z.object({ type: z.literal("refusal"), refusal: z.string() });
const partSchema = z.discriminatedUnion("type", [textPart, refusalPart], {
  error: "only text is read: input_text, output_text or refusal (POST /v1/classify takes images)",
});
const messageSchema = z.object({
  type: z.literal("message").optional(),
  role: z.enum(["user", "system", "developer", "assistant"]),
  content: z.union([z.string(), z.array(partSchema)]),
});
const callSchema = z.object({
  type: z.literal("function_call"),
  call_id: z.string(),
  name: z.string(),
  arguments: z.string().openapi({ description: "JSON, as the model wrote it" }),
});
const outputSchema = z.object({
  type: z.literal("function_call_output"),
  call_id: z.string().openapi({ description: "Of the call that it answers" }),
  output: z.union([z.string(), z.array(textPart)]),
});
const itemSchema = z.discriminatedUnion("type", [messageSchema, callSchema, outputSchema], {
  error: "only messages, function_call and function_call_output are read",
});
export const inputSchema = z.union([z.string(), z.array(itemSchema).min(1)]).openapi({
  description: "A user's text, or messages, calls and their outputs; what a response put out can go in again",
});

type Message = z.infer<typeof messageSchema>;
type Item = z.infer<typeof itemSchema>;

const textOf = (part: z.infer<typeof partSchema>): string =>
  part.type === "refusal" ? part.refusal : part.text;

/** Text parts join; the newer name of the system role goes by the one templates know. */
const toMessage = ({ role, content }: Message): ChatMessage => ({
  role: role === "developer" ? "system" : role,
  content: joined(content),
});

const joined = (content: string | readonly z.infer<typeof partSchema>[]): string =>
  typeof content === "string" ? content : content.map(textOf).join("");

/**
 * Calls belong to the message of the assistant that they follow, or make one of their own.
 * @throws {OatmillError} invalid_request for arguments that are no JSON object
 */
function toMessages(items: readonly Item[]): ChatMessage[] {
  const messages: ChatMessage[] = [], names = new Map<string, string>();
  items.forEach((item, i) => {
    if (item.type === "function_call") {
      const { call_id: id, name } = item, last = messages.at(-1);
      const call = {
        id,
        type: "function" as const,
        function: { name, arguments: toObject(item.arguments, `input.${i}.arguments`) },
      };
      names.set(id, name);
      if (last?.role === "assistant") {
        messages[messages.length - 1] = { ...last, tool_calls: [...last.tool_calls ?? [], call] };
      } else messages.push({ role: "assistant", content: "", tool_calls: [call] });
    } else if (item.type === "function_call_output") {
      const { call_id: tool_call_id, output } = item, name = names.get(tool_call_id);
      messages.push({ role: "tool", tool_call_id, ...name ? { name } : {}, content: joined(output) });
    } else messages.push(toMessage(item));
  });
  return messages;
}

export interface Conversation {
  /** What truncation never drops. */
  readonly instructions: readonly ChatMessage[];
  readonly messages: readonly ChatMessage[];
}

export function readConversation(
  input: z.infer<typeof inputSchema>,
  instructions: string | null | undefined,
): Conversation {
  return {
    instructions: instructions ? [{ role: "system", content: instructions }] : [],
    messages: typeof input === "string" ? [{ role: "user", content: input }] : toMessages(input),
  };
}

export interface RenderOptions {
  /** Beginnings are dropped until so many are left; null: nothing is dropped. */
  readonly mostTokens: number | null;
  /** As templates get them; null: none. */
  readonly tools: readonly object[] | null;
  readonly signal: AbortSignal;
}
export interface RenderedPrompt {
  readonly text: string;
  readonly ids: readonly number[];
}

async function render(
  { instructions, messages }: Conversation,
  model: OpenedModel,
  { signal, mostTokens, tools }: RenderOptions,
): Promise<RenderedPrompt> {
  const tokenizer = needTokenizer(model);
  const text = tokenizer.renderChat([...instructions, ...messages], {
    addGenerationPrompt: true,
    ...tools ? { tools } : {},
  });
  const [ids] = await encodeTexts(model, tokenizer, {
    texts: [text],
    addSpecialTokens: false, // templates write them
    signal,
    // What is too long may yet be shortened.
    ...mostTokens === null ? { param: "input" } : {},
  });
  return { text, ids };
}

/**
 * The prompt of a conversation; with `mostTokens`, of its longest end within so many tokens that begins with a user's
 * message, as templates want it.
 * @param mostTokens null: nothing is dropped
 * @returns too long a prompt when the last user's message alone does not fit
 * @throws {OatmillError} invalid_chat_template
 */
export async function renderConversation(
  conversation: Conversation,
  model: OpenedModel,
  options: RenderOptions,
): Promise<RenderedPrompt> {
  const { mostTokens } = options;
  const whole = await render(conversation, model, options);
  if (mostTokens === null || whole.ids.length <= mostTokens) return whole;
  const { instructions, messages } = conversation;
  const starts = messages.flatMap(({ role }, i) => role === "user" && i > 0 ? [i] : []);
  let prompt = whole;
  for (let low = 0, high = starts.length - 1; low <= high;) {
    const middle = (low + high) >> 1;
    const shorter = await render({ instructions, messages: messages.slice(starts[middle]) }, model, options);
    const fits = shorter.ids.length <= mostTokens;
    if (fits || prompt.ids.length > mostTokens) prompt = shorter;
    if (fits) high = middle - 1;
    else low = middle + 1;
  }
  return prompt;
}
