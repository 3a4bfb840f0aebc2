/** What chat completions answer, whole or in chunks. */
import { z } from "@hono/zod-openapi";
import { needTokenizer } from "../engine/open_model.ts";
import type { TextEvent } from "../engine/text.ts";
import type { Tokenizer } from "../models/tokenizer.ts";
import { generationHead, streamAnswer } from "./answer.ts";
import { AnswerReader, type CallsOptions, type ToolCallDelta, withArguments } from "./answer_reader.ts";
import type { ChoiceEvent, Generation } from "./generation.ts";
import { type SamplingFields, timingsSchema, usageSchema } from "./sampling.ts";
import { type TokenLogprob, tokenLogprob, tokenLogprobSchema } from "./token_logprob.ts";

const logprobsSchema = z.object({
  content: z.array(tokenLogprobSchema),
  refusal: z.null(),
});
const toolCallSchema = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({ name: z.string(), arguments: z.string() }),
}).openapi("ChatToolCall");
const finishReason = z.enum(["stop", "length", "tool_calls"]);

export const responseSchema = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string().openapi({ description: "The version of the model that answers" }),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({
      role: z.literal("assistant"),
      content: z.string().nullable().openapi({ description: "null: calls of tools alone" }),
      refusal: z.null(),
      tool_calls: z.array(toolCallSchema).optional(),
    }),
    logprobs: logprobsSchema.nullable(),
    finish_reason: finishReason,
    token_ids: z.array(z.int()).optional(),
  })),
  usage: usageSchema,
  timings: timingsSchema,
}).openapi("ChatCompletion");
type Message = z.infer<typeof responseSchema>["choices"][number]["message"];

export interface AnswerFields extends SamplingFields {
  readonly logprobs?: boolean | null;
}

/** What an event adds to its answer. */
interface Delta {
  readonly content: string;
  readonly calls: readonly ToolCallDelta[];
  readonly logprobs: TokenLogprob[];
  readonly ids: number[];
  readonly finish: z.infer<typeof finishReason> | null;
}

export class ChatAnswer {
  readonly #head: ReturnType<typeof generationHead>;
  readonly #tokenizer: Tokenizer;
  readonly #readers: readonly AnswerReader[];

  /** @param calls null: answers are content alone */
  constructor(readonly body: AnswerFields, readonly generation: Generation, calls: CallsOptions | null) {
    this.#head = generationHead("chatcmpl", body.model, generation);
    this.#tokenizer = needTokenizer(generation.model);
    this.#readers = generation.choices.map(() => new AnswerReader(calls));
  }

  async whole(): Promise<z.infer<typeof responseSchema>> {
    const answers = this.generation.choices.map((): Delta[] => []);
    for await (const { index, event } of this.generation.events()) {
      if (event.type !== "prompt") answers[index].push(this.#delta(index, event));
    }
    return {
      ...this.#head,
      object: "chat.completion",
      choices: answers.map((deltas, index) => ({
        index,
        message: messageOf(deltas),
        logprobs: this.body.logprobs ? { content: deltas.flatMap((d) => d.logprobs), refusal: null } : null,
        finish_reason: deltas.at(-1)?.finish ?? "stop",
        ...this.body.return_token_ids ? { token_ids: deltas.flatMap((d) => d.ids) } : {},
      })),
      usage: this.generation.usage(),
      timings: this.generation.timings(),
    };
  }

  stream(): Response {
    const head = { ...this.#head, object: "chat.completion.chunk" };
    return streamAnswer(this.generation, { head, body: this.body, parts: (event) => this.#parts(event) });
  }
  #parts({ index, event }: ChoiceEvent): { finish_reason: Delta["finish"] }[] {
    const choice = (delta: object, more: object = {}) => ({
      index,
      delta,
      logprobs: null,
      finish_reason: null,
      ...more,
    });
    if (event.type === "prompt") return [choice({ role: "assistant", content: "" })];
    const { content, calls, logprobs, ids, finish } = this.#delta(index, event);
    const silent = content === "" && !calls.length && !logprobs.length && !ids.length;
    const shown = choice({
      ...content !== "" || !calls.length ? { content } : {},
      ...calls.length ? { tool_calls: calls } : {},
    }, {
      logprobs: logprobs.length ? { content: logprobs, refusal: null } : null,
      ...ids.length ? { token_ids: ids } : {},
    });
    return [...silent ? [] : [shown], ...finish ? [choice({}, { finish_reason: finish })] : []];
  }

  #delta(index: number, event: Exclude<TextEvent, { type: "prompt" }>): Delta {
    const reader = this.#readers[index], ended = event.type === "end";
    const { content, calls } = reader.read(event.text, ended);
    const finish = ended ? event.reason : null;
    return {
      content,
      calls,
      logprobs: this.body.logprobs ? event.tokens.map((t) => tokenLogprob(t, this.#tokenizer)) : [],
      ids: this.body.return_token_ids ? event.tokens.map((t) => t.id) : [],
      finish: finish === "stop" && reader.hasCalls ? "tool_calls" : finish,
    };
  }
}

function messageOf(deltas: readonly Delta[]): Message {
  const content = deltas.map((d) => d.content).join("");
  const calls: ToolCallDelta[] = [];
  for (const delta of deltas.flatMap((d) => d.calls)) {
    const known = calls[delta.index];
    calls[delta.index] = known ? withArguments(known, delta.function.arguments) : delta;
  }
  const tool_calls = calls.map(({ id, function: { name, arguments: args } }) => ({
    id: id!, // the first delta of a call has both
    type: "function" as const,
    function: { name: name!, arguments: args },
  }));
  return {
    role: "assistant",
    content: content === "" && tool_calls.length > 0 ? null : content,
    refusal: null,
    ...tool_calls.length > 0 ? { tool_calls } : {},
  };
}
