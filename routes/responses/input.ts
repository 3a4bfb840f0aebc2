/** `input` and `instructions` of a response as the messages of a chat template. */
import { z } from "@hono/zod-openapi";
import type { ChatMessage, Tokenizer } from "../../models/tokenizer.ts";

const textPart = z.object({ type: z.enum(["input_text", "output_text"]), text: z.string() });
const refusalPart = z.object({ type: z.literal("refusal"), refusal: z.string() });
const partSchema = z.discriminatedUnion("type", [textPart, refusalPart], {
  error: "only text is read: input_text, output_text or refusal (POST /v1/classify takes images)",
});
const messageSchema = z.object({
  type: z.literal("message", { error: "only messages are read" }).optional(),
  role: z.enum(["user", "system", "developer", "assistant"]),
  content: z.union([z.string(), z.array(partSchema)]),
});
export const inputSchema = z.union([z.string(), z.array(messageSchema).min(1)]).openapi({
  description: "A user's text, or messages; what a response put out can go in again",
});

type Message = z.infer<typeof messageSchema>;

const textOf = (part: z.infer<typeof partSchema>): string =>
  part.type === "refusal" ? part.refusal : part.text;

/** Text parts join; the newer name of the system role goes by the one templates know. */
const toMessage = ({ role, content }: Message): ChatMessage => ({
  role: role === "developer" ? "system" : role,
  content: typeof content === "string" ? content : content.map(textOf).join(""),
});

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
    messages: typeof input === "string" ? [{ role: "user", content: input }] : input.map(toMessage),
  };
}

export interface RenderedPrompt {
  readonly text: string;
  readonly ids: readonly number[];
}

function render({ instructions, messages }: Conversation, tokenizer: Tokenizer): RenderedPrompt {
  const text = tokenizer.renderChat([...instructions, ...messages], { addGenerationPrompt: true });
  return { text, ids: tokenizer.encode(text, { addSpecialTokens: false }) }; // templates write them
}

/**
 * The prompt of a conversation; with `mostTokens`, of its longest end within so many tokens that begins with a user's
 * message, as templates want it.
 * @param mostTokens null: nothing is dropped
 * @returns too long a prompt when the last user's message alone does not fit
 * @throws {OatmillError} invalid_chat_template
 */
export function renderConversation(
  conversation: Conversation,
  tokenizer: Tokenizer,
  mostTokens: number | null,
): RenderedPrompt {
  const whole = render(conversation, tokenizer);
  if (mostTokens === null || whole.ids.length <= mostTokens) return whole;
  const { instructions, messages } = conversation;
  const starts = messages.flatMap(({ role }, i) => role === "user" && i > 0 ? [i] : []);
  let prompt = whole;
  for (let low = 0, high = starts.length - 1; low <= high;) {
    const middle = (low + high) >> 1;
    const shorter = render({ instructions, messages: messages.slice(starts[middle]) }, tokenizer);
    const fits = shorter.ids.length <= mostTokens;
    if (fits || prompt.ids.length > mostTokens) prompt = shorter;
    if (fits) high = middle - 1;
    else low = middle + 1;
  }
  return prompt;
}
