/** A server that does nothing but answer: so many tokens at a given pace. What a client measures of it is the client's own. */
import type { ChatTurn } from "./client.ts";

export interface StubOptions {
  /** Before the first token. */
  readonly firstTokenMs: number;
  /** Between tokens; 0 writes all at once. */
  readonly tokenMs: number;
}

const encoder = new TextEncoder();
const event = (data: unknown) => encoder.encode(`data: ${JSON.stringify(data)}\n\n`);
const TOKEN = event({
  id: "stub",
  object: "text_completion",
  choices: [{ index: 0, text: " token", finish_reason: null }],
});
const FINISH = event({ id: "stub", choices: [{ index: 0, text: "", finish_reason: "length" }] });
const DONE = encoder.encode("data: [DONE]\n\n");
/** Of a request without max_tokens. */
const DEFAULT_TOKENS = 16;

/** Answers completions and chat completions, streamed, on a free port of this machine. */
export function startStub(options: StubOptions): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    if (request.method === "GET") return Response.json({ object: "list", data: [{ id: "stub" }] });
    const { max_tokens = DEFAULT_TOKENS, prompt, messages } = await request.json();
    const input = wordsIn(prompt ?? messages);
    const body = ReadableStream.from(answer(max_tokens, input, options));
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  });
}

/** Paced by a schedule that starts with the request: a token that came late does not delay the next. */
async function* answer(tokens: number, input: number, { firstTokenMs, tokenMs }: StubOptions) {
  const startMs = performance.now() + firstTokenMs;
  for (let i = 0; i < tokens; i++) {
    const waitMs = startMs + i * tokenMs - performance.now();
    if (waitMs > 0) await new Promise((done) => setTimeout(done, waitMs));
    yield TOKEN;
  }
  yield FINISH;
  yield event({ choices: [], usage: { prompt_tokens: input, completion_tokens: tokens } });
  yield DONE;
}

const wordsIn = (prompt: string | readonly ChatTurn[] | readonly number[]): number =>
  typeof prompt === "string" ? prompt.split(/\s+/).length : prompt.length;
