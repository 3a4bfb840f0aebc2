/** A server of streamed completions that does what its script says, request by request. Tests only. */

export interface ScriptedAnswer {
  readonly status?: number;
  readonly contentType?: string;
  /** What is written, piece by piece; a number waits so many milliseconds, a promise until it is fulfilled. */
  readonly pieces: readonly (string | Uint8Array | number | Promise<unknown>)[];
  /** Breaks the connection off at the end. */
  readonly breakOff?: boolean;
}
// deno-lint-ignore no-explicit-any -- JSON of a request, looked into by the tests
type Json = any;
export type Script = (body: Json, index: number) => ScriptedAnswer | Promise<ScriptedAnswer>;

export class ScriptedServer implements AsyncDisposable {
  readonly bodies: Json[] = [];
  readonly headers: Headers[] = [];
  readonly #http: Deno.HttpServer<Deno.NetAddr>;

  constructor(script: Script) {
    this.#http = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
      if (new URL(request.url).pathname === "/v1/models") {
        return Response.json({ object: "list", data: [{ id: "stub", object: "model" }] });
      }
      if (request.method !== "POST") return new Response("nothing here", { status: 404 });
      const body = await request.json();
      this.bodies.push(body);
      this.headers.push(request.headers);
      const answer = await script(body, this.bodies.length - 1);
      const { status = 200, contentType = "text/event-stream" } = answer;
      return new Response(stream(answer), { status, headers: { "content-type": contentType } });
    });
  }
  get url(): string {
    return `http://127.0.0.1:${this.#http.addr.port}/v1`;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http.shutdown();
  }
}

function stream({ pieces, breakOff }: ScriptedAnswer): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  async function* parts() {
    for (const piece of pieces) {
      if (typeof piece === "string") yield encoder.encode(piece);
      else if (typeof piece === "number") await new Promise((done) => setTimeout(done, piece));
      else if (piece instanceof Uint8Array) yield piece;
      else await piece;
    }
    if (breakOff) throw new Error("broken off by the script");
  }
  return ReadableStream.from(parts());
}

export const event = (data: unknown): string =>
  `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
export const textEvent = (text: string): string =>
  event({ choices: [{ index: 0, text, finish_reason: null }] });
export const finishEvent = event({ choices: [{ index: 0, text: "", finish_reason: "length" }] });
export const usageEvent = (input: number, output: number): string =>
  event({ choices: [], usage: { prompt_tokens: input, completion_tokens: output } });

/** A whole answer of so many tokens, one a piece. */
export function wholeAnswer(tokens: number, input = 3): ScriptedAnswer {
  const texts = Array.from({ length: tokens }, (_, i) => textEvent(` t${i}`));
  return { pieces: [...texts, finishEvent, usageEvent(input, tokens), event("[DONE]")] };
}
