/**
 * Text in front of the engine: incremental decoding, stop strings (never emitted, also when they cross token borders),
 * characters kept whole. Shared by HTTP and the CLI; whoever joins the `text` of all events has the whole answer, so
 * streamed and non-streamed answers cannot differ.
 */
import type { Tokenizer, TokenStream } from "../models/tokenizer.ts";
import type { Engine, GenerateEvent, GenerateRequest, Timings, TokenLogprobs } from "./types.ts";

export interface TextRequest extends GenerateRequest {
  /** Strings that end the generation. */
  readonly stop: readonly string[];
}

export interface TextToken {
  readonly id: number;
  readonly logprobs: TokenLogprobs | null;
  /** Where the token's text begins in the generated text (UTF-16 units). */
  readonly offset: number;
}

export type TextEvent =
  | Extract<GenerateEvent, { type: "prompt" }>
  /** One for each generated token: what may be shown now ("" while text is held back), and the tokens it completes. */
  | { readonly type: "text"; readonly text: string; readonly tokens: readonly TextToken[] }
  | {
    readonly type: "end";
    readonly reason: "stop" | "length";
    /** The stop string met, if that was the reason. */
    readonly stop: string | null;
    /** What was held back until the end, and its tokens. */
    readonly text: string;
    readonly tokens: readonly TextToken[];
    readonly timings: Timings;
  };

/** Text so far, of which only the part is released that cannot become a stop string. */
export class StopMatcher {
  #held = "";
  constructor(readonly stops: readonly string[]) {}

  /** @returns what may be shown, and the stop string when one is complete (the rest is dropped) */
  push(text: string): { readonly text: string; readonly stop: string | null } {
    this.#held += text;
    let at = Infinity;
    let stop: string | null = null;
    for (const s of this.stops) {
      const i = this.#held.indexOf(s);
      if (i >= 0 && i < at) [at, stop] = [i, s];
    }
    const shown = stop === null ? this.#held.length - this.#possibleStart() : at;
    const released = this.#held.slice(0, shown);
    this.#held = stop === null ? this.#held.slice(shown) : "";
    return { text: released, stop };
  }
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** Length of the longest end of the held text that is the start of a stop string. */
  #possibleStart(): number {
    const longest = Math.max(0, ...this.stops.map((s) => s.length - 1));
    for (let n = Math.min(longest, this.#held.length); n > 0; n--) {
      const tail = this.#held.slice(-n);
      if (this.stops.some((s) => s.startsWith(tail))) return n;
    }
    return 0;
  }
}

/** Tokens wait here until their text is shown. */
class TokenQueue {
  #waiting: (TextToken & { end: number })[] = [];
  #decoded = 0;
  #shown = 0;

  add(id: number, logprobs: TokenLogprobs | null, text: string): void {
    const offset = this.#decoded;
    this.#decoded += text.length;
    this.#waiting.push({ id, logprobs, offset, end: this.#decoded });
  }
  show(text: string): TextToken[] {
    this.#shown += text.length;
    return this.#take((t) => t.end <= this.#shown);
  }
  /** After a stop string: what begins before it; otherwise all. */
  rest(text: string, stopped: boolean): TextToken[] {
    this.#shown += text.length;
    return this.#take((t) => !stopped || t.offset < this.#shown);
  }
  #take(ready: (t: TextToken & { end: number }) => boolean): TextToken[] {
    const out: TextToken[] = [];
    while (this.#waiting.length > 0 && ready(this.#waiting[0])) {
      const { id, logprobs, offset } = this.#waiting.shift()!;
      out.push({ id, logprobs, offset });
    }
    return out;
  }
}

const NO_TEXT: TokenStream = { push: () => "", end: () => "" };

/**
 * Yields one "prompt" event, one "text" event for each token, one "end" event.
 * @param tokenizer null: a model without one; texts are empty
 * @throws {OatmillError} as `Engine.generate()`
 */
export async function* generateText(
  engine: Engine,
  tokenizer: Tokenizer | null,
  request: TextRequest,
  signal?: AbortSignal,
): AsyncGenerator<TextEvent, void, void> {
  const stream = tokenizer?.stream({ after: request.promptIds }) ?? NO_TEXT;
  const matcher = new StopMatcher(request.stop);
  const queue = new TokenQueue();
  const clock = new Clock();
  for await (const event of engine.generate(request, signal)) {
    if (event.type === "prompt") {
      clock.prompt(event.promptTokens);
      yield event;
    } else if (event.type === "token") {
      clock.token();
      const decoded = stream.push(event.token);
      queue.add(event.token, event.logprobs, decoded);
      const { text, stop } = matcher.push(decoded);
      if (stop === null) {
        yield { type: "text", text, tokens: queue.show(text) };
      } else {
        const tokens = queue.rest(text, true);
        yield { type: "end", reason: "stop", stop, text, tokens, timings: clock.timings() };
        return; // leaving the loop frees the sequence
      }
    } else {
      const last = matcher.push(stream.end());
      const text = last.text + (last.stop === null ? matcher.end() : "");
      const tokens = queue.rest(text, last.stop !== null);
      const reason = last.stop === null ? event.reason : "stop";
      yield { type: "end", reason, stop: last.stop, text, tokens, timings: event.timings };
    }
  }
}

/** Timings of a generation that a stop string ends, where the engine's own never come (queue and prefill in one). */
class Clock {
  readonly #start = performance.now();
  #first = 0;
  #last = 0;
  #promptTokens = 0;
  #tokens = 0;

  prompt(tokens: number): void {
    this.#promptTokens = tokens;
  }
  token(): void {
    this.#last = performance.now();
    if (this.#tokens++ === 0) this.#first = this.#last;
  }
  timings(): Timings {
    return {
      queueMs: 0,
      prefillMs: this.#first - this.#start,
      decodeMs: this.#last - this.#first,
      promptTokens: this.#promptTokens,
      completionTokens: this.#tokens,
    };
  }
}
