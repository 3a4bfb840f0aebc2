/** POST /v1/chat/completions: the model's chat template, then the same generation as completions. */
import { type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { encodeTexts } from "../engine/long_texts.ts";
import { needTokenizer, type OpenedModel, stopIdsOf } from "../engine/open_model.ts";
import { answerRoute } from "./answer.ts";
import { ChatAnswer, responseSchema } from "./chat_answer.ts";
import { messageSchema, toMessages } from "./chat_messages.ts";
import { type Choice, Generation } from "./generation.ts";
import { grammarOf, responseFormatSchema } from "./response_format.ts";
import {
  checkFields,
  fitContext,
  requestSeed,
  samplingFields,
  samplingOptions,
  stopStrings,
} from "./sampling.ts";
import { resource, type Services } from "./services.ts";
import { toolGrammarOf } from "./tool_grammar.ts";
import { callsOf, needToolSyntax, readToolUse, templateTools, toolFields, type ToolUse } from "./tools.ts";
import { wholeAnswer } from "./whole_answer.ts";

const requestSchema = z.object({
  ...samplingFields,
  ...toolFields,
  messages: z.array(messageSchema).min(1),
  max_completion_tokens: z.int().min(0).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  response_format: responseFormatSchema.nullish(),
}).openapi("ChatCompletionRequest");
type Body = z.infer<typeof requestSchema>;

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
    const use = readToolUse(body);
    const generation = await Generation.start((model, signal) => readChoices(body, use, { model, signal }), {
      operation: "chat",
      model: body.model,
      request: c.req.raw,
      services,
    });
    const answer = new ChatAnswer(body, generation, use && callsOf(use, generation.model));
    const sent = body.stream
      ? answer.stream()
      : wholeAnswer(c, answer.whole(), { leave: () => generation.leave(), ...services.limits });
    // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
    return await sent as any;
  });
  return app;
}

function checkBody(body: Body): void {
  checkFields(body);
  if (typeof body.top_logprobs === "number" && !body.logprobs) {
    const message = 'Cannot use "top_logprobs" without "logprobs": true';
    throw new OatmillError("invalid_request", message, "top_logprobs");
  }
}

async function readChoices(
  body: Body,
  use: ToolUse | null,
  { model, signal }: { model: OpenedModel; signal: AbortSignal },
): Promise<Choice[]> {
  const tokenizer = needTokenizer(model);
  const format = body.response_format ?? null;
  const grammar = use
    ? toolGrammarOf(use, { syntax: needToolSyntax(model), format, model })
    : grammarOf(format, model);
  const text = tokenizer.renderChat(toMessages(body.messages), {
    addGenerationPrompt: true,
    ...use ? { tools: templateTools(use) } : {},
  });
  const [promptIds] = await encodeTexts(model, tokenizer, {
    texts: [text],
    addSpecialTokens: false, // templates write them
    signal,
    param: "messages",
  });
  const { contextLength, vocabSize } = model.engine;
  const asked = body.max_completion_tokens ?? body.max_tokens ?? null;
  const maxTokens = fitContext(promptIds.length, asked, { contextLength, param: "messages" });
  const seed = requestSeed(body);
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
