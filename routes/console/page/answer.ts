/** One answer of a model as it comes, with what it took. */
import { ApiError, jsonBody, request } from "./api.ts";
import { eventData } from "./event_stream.ts";

export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}
export interface Settings {
  readonly temperature: number;
  readonly top_p: number;
  readonly max_tokens: number;
  /** null: another one each time. */
  readonly seed: number | null;
}
export interface Answer {
  readonly text: string;
  /** From the request to the first text, as this page saw it. */
  readonly ttftMs: number | null;
  /** Decode speed by the server's own clock, once it has ended. */
  readonly tokensPerSecond: number | null;
  readonly tokens: number | null;
  readonly finish: string | null;
}
export interface Question {
  readonly model: string;
  readonly messages: readonly Message[];
  readonly settings: Settings;
  readonly signal: AbortSignal;
}

interface Chunk {
  readonly choices: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly text?: string;
    readonly finish_reason: string | null;
  }[];
  readonly timings?: { readonly predicted_n: number; readonly predicted_per_second: number | null };
}

/** Models without a chat template continue the text of the last message. */
const withoutTemplate = new Set<string>();
export const continuesText = (model: string): boolean => withoutTemplate.has(model);

/** @throws {ApiError} */
export async function* streamAnswer(question: Question): AsyncGenerator<Answer, void, void> {
  const startMs = performance.now();
  const response = await ask(question);
  let answer: Answer = { text: "", ttftMs: null, tokensPerSecond: null, tokens: null, finish: null };
  for await (const { choices: [choice], timings } of eventData<Chunk>(response)) {
    const text = choice?.delta?.content ?? choice?.text ?? "";
    answer = {
      text: answer.text + text,
      ttftMs: answer.ttftMs ?? (text === "" ? null : performance.now() - startMs),
      tokensPerSecond: timings?.predicted_per_second ?? answer.tokensPerSecond,
      tokens: timings?.predicted_n ?? answer.tokens,
      finish: choice?.finish_reason ?? answer.finish,
    };
    yield answer;
  }
}

async function ask(question: Question): Promise<Response> {
  const { model, messages, settings, signal } = question;
  const body = { model, stream: true, ...settings };
  if (!continuesText(model)) {
    try {
      return await request("/v1/chat/completions", { ...jsonBody({ ...body, messages }), signal });
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "invalid_chat_template") throw error;
      withoutTemplate.add(model);
    }
  }
  return await request("/v1/completions", {
    ...jsonBody({ ...body, prompt: messages.at(-1)!.content }),
    signal,
  });
}
