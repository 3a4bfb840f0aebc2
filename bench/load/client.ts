/**
 * One streamed request of an OpenAI-compatible server, timed. What goes wrong is counted by kind, never thrown. Times are
 * performance.now() in milliseconds, taken once for each piece that the network delivers.
 */
import { readChunk, type StreamChunk } from "./stream_chunk.ts";
import { SseParser } from "./sse.ts";

export const ENDPOINTS = { completions: "/completions", chat: "/chat/completions" } as const;
export type Endpoint = keyof typeof ENDPOINTS;

export interface Target {
  /** Of the API, as in `http://127.0.0.1:8000/v1`. */
  readonly baseUrl: string;
  readonly endpoint: Endpoint;
  readonly model: string;
  readonly apiKey?: string;
  /** Further fields of every request; null takes a field away. */
  readonly body?: Readonly<Record<string, unknown>>;
  readonly timeoutMs: number;
}

export interface ChatTurn {
  readonly role: string;
  readonly content: string;
}
export interface LoadRequest {
  /** For completions messages become lines; token ids are for completions alone. */
  readonly prompt: string | readonly number[] | readonly ChatTurn[];
  /** The most that is generated; null leaves it to the server. */
  readonly outputTokens: number | null;
}

/** `cancelled` is the caller's own doing and no error. */
export type ErrorKind =
  | "connection"
  | "timeout"
  | "cancelled"
  | `http_${number}`
  | "not_a_stream"
  | "malformed"
  | "stream_error"
  | "truncated";

export interface Exchange {
  readonly sentMs: number;
  /** The first piece of the answer; null where none came. */
  readonly firstMs: number | null;
  readonly endMs: number;
  /** As the server counts; null where it does not say. */
  readonly inputTokens: number | null;
  /** Of the input, that the server had from other prompts; 0 where it does not say. */
  readonly cachedTokens: number;
  /** As the server counts, or else the pieces. */
  readonly outputTokens: number;
  readonly counted: "usage" | "chunks";
  /** Pieces of the answer. */
  readonly chunks: number;
  /** Between one piece and the next; those that come in one delivery are 0 apart. */
  readonly gapsMs: readonly number[];
  readonly error: { readonly kind: ErrorKind; readonly message: string } | null;
}

/** Of an error's body. */
const MOST_MESSAGE = 300;

/** Sends and reads to the end. Never rejects. */
export async function exchange(
  target: Target,
  request: LoadRequest,
  signal?: AbortSignal,
): Promise<Exchange> {
  const abort = new AbortController(), cancel = () => abort.abort();
  signal?.addEventListener("abort", cancel, { once: true });
  if (signal?.aborted) cancel();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    abort.abort();
  }, target.timeoutMs);
  const reading = new Reading(performance.now());
  try {
    await reading.run(target, request, abort.signal);
  } catch (error) {
    const kind = late ? "timeout" : abort.signal.aborted ? "cancelled" : "connection";
    reading.fail(
      kind,
      late ? `No end within ${target.timeoutMs} ms` : String((error as Error).message ?? error),
    );
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
  }
  return reading.exchange();
}

/** The answer so far. */
class Reading {
  #firstMs: number | null = null;
  #lastMs = 0;
  #chunks = 0;
  #done = false;
  #usage: StreamChunk["usage"] = null;
  #error: Exchange["error"] = null;
  readonly #gapsMs: number[] = [];
  constructor(readonly sentMs: number) {}

  fail(kind: ErrorKind, message: string): void {
    this.#error ??= { kind, message: message.slice(0, MOST_MESSAGE) };
  }

  async run(target: Target, request: LoadRequest, signal: AbortSignal): Promise<void> {
    const response = await fetch(target.baseUrl + ENDPOINTS[target.endpoint], {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "text/event-stream",
        ...target.apiKey ? { authorization: `Bearer ${target.apiKey}` } : {},
      },
      body: requestBody(target, request),
      signal,
    });
    const type = response.headers.get("content-type") ?? "";
    if (!response.ok) return this.fail(`http_${response.status}`, errorMessage(await response.text()));
    if (!response.body || !type.startsWith("text/event-stream")) {
      await response.body?.cancel();
      return this.fail("not_a_stream", `The answer is "${type}", must be "text/event-stream"`);
    }
    const parser = new SseParser();
    for await (const bytes of response.body) {
      const now = performance.now();
      parser.push(bytes, (data) => this.#event(data, now));
    }
    if (!this.#done) this.fail("truncated", "The stream ended without a finish_reason");
  }

  #event(data: string, now: number): void {
    if (data === "[DONE]") return;
    const chunk = readChunk(data);
    if (!chunk) return this.fail("malformed", `No JSON object: ${data}`);
    if (chunk.error !== null) this.fail("stream_error", chunk.error);
    if (chunk.text) {
      if (this.#chunks++ > 0) this.#gapsMs.push(now - this.#lastMs);
      this.#lastMs = now;
    }
    // An answer that is empty from its beginning comes with its end.
    if (chunk.text || chunk.finish !== null) this.#firstMs ??= now;
    this.#done ||= chunk.finish !== null;
    this.#usage = chunk.usage ?? this.#usage;
  }

  exchange(): Exchange {
    return {
      sentMs: this.sentMs,
      firstMs: this.#firstMs,
      endMs: performance.now(),
      inputTokens: this.#usage?.input ?? null,
      cachedTokens: this.#usage?.cached ?? 0,
      outputTokens: this.#usage?.output ?? this.#chunks,
      counted: this.#usage ? "usage" : "chunks",
      chunks: this.#chunks,
      gapsMs: this.#gapsMs,
      error: this.#error,
    };
  }
}

export function requestBody(target: Target, { prompt, outputTokens }: LoadRequest): string {
  const fields = {
    model: target.model,
    ...PROMPT_FIELD[target.endpoint](prompt),
    ...outputTokens === null ? {} : { max_tokens: outputTokens },
    stream: true,
    stream_options: { include_usage: true },
    ...target.body,
  };
  return JSON.stringify(fields, (_, value) => value === null ? undefined : value);
}

const PROMPT_FIELD: Record<Endpoint, (prompt: LoadRequest["prompt"]) => object> = {
  completions: (prompt) => ({
    prompt: isChat(prompt) ? prompt.map((turn) => turn.content).join("\n") : prompt,
  }),
  chat: (prompt) => ({ messages: isChat(prompt) ? prompt : [{ role: "user", content: prompt }] }),
};
export const isChat = (prompt: LoadRequest["prompt"]): prompt is readonly ChatTurn[] =>
  typeof prompt === "object" && typeof prompt[0] === "object";

function errorMessage(text: string): string {
  try {
    return String(JSON.parse(text).error.message);
  } catch {
    return text;
  }
}

/**
 * @param url with or without the API's path: `http://host:8000` is `http://host:8000/v1`
 * @returns null for what is no http(s) address
 */
export function apiUrl(url: string): string | null {
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) return null;
  const { origin, pathname } = new URL(url);
  const path = pathname.replace(/\/+$/, "");
  return origin + (path === "" ? "/v1" : path);
}
