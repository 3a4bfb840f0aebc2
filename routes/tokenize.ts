/** POST /tokenize and /detokenize: a model's tokenizer, by the fields that vLLM and llama.cpp's server have. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { decodeTokens, encodeTexts } from "../engine/long_texts.ts";
import { needTokenizer } from "../engine/open_model.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { messageSchema, toMessages } from "./chat_messages.ts";
import { errorResponse } from "./errors.ts";
import { maybeNoTokens } from "./lists.ts";
import { samplingFields } from "./sampling.ts";
import { resource, type Services } from "./services.ts";
import { readToolUse, templateTools, toolFields } from "./tools.ts";

const flag = (description: string) => z.boolean().nullish().openapi({ description });
const tokenizeSchema = z.object({
  model: samplingFields.model,
  prompt: z.string().nullish().openapi({ description: "The text; either this, `content` or `messages`" }),
  content: z.string().nullish().openapi({ description: "As llama.cpp's server names `prompt`" }),
  messages: z.array(messageSchema).min(1).nullish().openapi({
    description: "A conversation, as the model's chat template writes it",
  }),
  tools: toolFields.tools,
  add_special_tokens: flag("Add what a text begins (and ends) with; default: to `prompt` alone"),
  add_special: flag("As llama.cpp's server names `add_special_tokens`"),
  add_generation_prompt: flag("With `messages`: end where the answer begins; default true"),
  return_token_strs: flag("Also answer `token_strs`"),
  with_pieces: flag("Answer each token as `{id, piece}`"),
}).openapi("TokenizeRequest");
type TokenizeBody = z.infer<typeof tokenizeSchema>;

const pieceSchema = z.object({
  id: z.int(),
  piece: z.union([z.string(), z.array(z.int())]).openapi({
    description: "The token's text; its bytes where it is a part of a character",
  }),
});
const tokensSchema = z.object({
  count: z.int(),
  max_model_len: z.int().openapi({ description: "Tokens of the model's context window" }),
  tokens: z.union([z.array(z.int()), z.array(pieceSchema)]),
  token_strs: z.array(z.string()).nullable().openapi({ description: "As the vocabulary writes them" }),
}).openapi("Tokens");

const detokenizeSchema = z.object({
  model: samplingFields.model,
  tokens: maybeNoTokens,
}).openapi("DetokenizeRequest");
const textSchema = z.object({
  prompt: z.string(),
  content: z.string().openapi({ description: "The same, as llama.cpp's server names it" }),
}).openapi("DetokenizedText");

const route = <P extends string, B extends z.ZodType, A extends z.ZodType>(
  o: { path: P; summary: string; body: B; answer: A; description: string },
) =>
  createRoute({
    method: "post",
    path: o.path,
    summary: o.summary,
    request: { body: { required: true, content: { "application/json": { schema: o.body } } } },
    responses: {
      200: { description: o.description, content: { "application/json": { schema: o.answer } } },
      default: errorResponse,
    },
  });

const tokenizeRoute = route({
  path: "/tokenize",
  summary: "Tokens of a text or a conversation",
  body: tokenizeSchema,
  answer: tokensSchema,
  description: "Token ids, and their strings when asked for",
});
const detokenizeRoute = route({
  path: "/detokenize",
  summary: "Text of tokens",
  body: detokenizeSchema,
  answer: textSchema,
  description: "The text, special tokens written out",
});

export function tokenize({ registry }: Services): OpenAPIHono {
  const app = resource();
  app.openapi(tokenizeRoute, async (c) => {
    const body = c.req.valid("json");
    const read = textReader(body);
    using lease = await registry.acquire(body.model);
    const tokenizer = needTokenizer(lease.model);
    const { signal } = c.req.raw;
    const [ids] = await encodeTexts(lease.model, tokenizer, { ...read(tokenizer), signal });
    return c.json({
      count: ids.length,
      max_model_len: lease.model.engine.contextLength,
      tokens: body.with_pieces ? ids.map((id) => ({ id, piece: pieceOf(tokenizer, id) })) : ids,
      token_strs: body.return_token_strs ? ids.map((id) => tokenizer.tokenText(id)) : null,
    }, 200);
  });
  app.openapi(detokenizeRoute, async (c) => {
    const { model, tokens } = c.req.valid("json");
    using lease = await registry.acquire(model);
    const tokenizer = needTokenizer(lease.model);
    const size = Math.max(tokenizer.vocabSize, lease.model.engine.vocabSize);
    const at = tokens.findIndex((id) => id >= size);
    if (at >= 0) {
      const message = `Invalid value of "tokens": token ${tokens[at]} is not below ${size}`;
      throw new OatmillError("invalid_request", message, `tokens.${at}`);
    }
    const text = await decodeTokens(lease.model, tokenizer, { ids: tokens, signal: c.req.raw.signal });
    return c.json({ prompt: text, content: text }, 200);
  });
  return app;
}

interface TextToRead {
  readonly texts: readonly [string];
  readonly addSpecialTokens: boolean;
}

/** Reads the one of a body's texts; templates write special tokens themselves, and llama.cpp's `content` has none by default. */
function textReader(body: TokenizeBody): (tokenizer: Tokenizer) => TextToRead {
  const given = [body.prompt, body.content, body.messages].filter((text) =>
    text !== null && text !== undefined
  );
  if (given.length !== 1) {
    const message = `Give one of "prompt", "content" and "messages": the request has ${given.length} of them`;
    throw new OatmillError("invalid_request", message, given.length === 0 ? "prompt" : "messages");
  }
  const asked = body.add_special_tokens ?? body.add_special;
  const { prompt, content, messages } = body;
  if (messages) {
    const use = readToolUse({ tools: body.tools });
    const options = {
      addGenerationPrompt: body.add_generation_prompt ?? true,
      ...use ? { tools: templateTools(use) } : {},
    };
    return (tokenizer) => ({
      texts: [tokenizer.renderChat(toMessages(messages), options)],
      addSpecialTokens: asked ?? false,
    });
  }
  const isPrompt = prompt !== null && prompt !== undefined;
  const text = isPrompt ? prompt : content!;
  return () => ({ texts: [text], addSpecialTokens: asked ?? isPrompt });
}

/** As llama.cpp's server: a string, or bytes where these are no characters of their own. */
function pieceOf(tokenizer: Tokenizer, id: number): string | number[] {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}
