/**
 * One request's generations (its prompts x n choices) run at once, measured: spans request -> queue, prefill, decode and
 * the latency metrics of telemetry.
 */
import type { z } from "@hono/zod-openapi";
import { generateText, type TextEvent, type TextRequest } from "../engine/text.ts";
import type { Timings } from "../engine/types.ts";
import { log } from "../telemetry/log.ts";
import { type Attributes, failSpan, type Span, SpanKind, type Telemetry } from "../telemetry/telemetry.ts";
import { errorTypeOf, logUnexpected } from "./errors.ts";
import type { Lease } from "./registry.ts";
import type { timingsSchema, usageSchema } from "./sampling.ts";

export interface Choice extends TextRequest {
  /** The prompt it belongs to: choices of one prompt count its tokens once. */
  readonly promptIndex: number;
}
export interface ChoiceEvent {
  readonly index: number;
  readonly event: TextEvent;
}

export class Generation {
  readonly #lease: Lease;
  readonly #abort = new AbortController();
  readonly #meter: Meter;
  readonly #events: AsyncGenerator<ChoiceEvent, void, void>;
  #over = false;
  #left = false;

  constructor(
    readonly operation: "text_completion" | "chat",
    readonly choices: readonly Choice[],
    options: { lease: Lease; telemetry: Telemetry; request: Request },
  ) {
    const { lease, telemetry, request } = options;
    this.#lease = lease;
    this.#meter = new Meter(telemetry, { operation, model: lease.id, request });
    request.signal.addEventListener("abort", () => this.leave(), { once: true });
    this.#events = this.#run();
  }

  /** @throws {OatmillError} whatever a choice throws; all others are stopped then */
  events(): AsyncGenerator<ChoiceEvent, void, void> {
    return this.#events;
  }
  async *#run(): AsyncGenerator<ChoiceEvent, void, void> {
    const { engine, tokenizer } = this.#lease.model;
    const runs = this.choices.map((c) => generateText(engine, tokenizer, c, this.#abort.signal));
    let error: unknown = null;
    try {
      for await (const { index, event } of merge(runs)) {
        this.#meter.see(this.choices[index], event);
        yield { index, event };
      }
    } catch (thrown) {
      error = thrown;
      throw thrown;
    } finally {
      this.#over = true;
      this.#abort.abort(); // one choice failed: stop the others
      this.#lease[Symbol.dispose]();
      const left = this.#left && !this.#meter.complete(this.choices.length);
      this.#meter.end(left ? "client_left" : error === null ? null : errorTypeOf(error));
      if (!left && error !== null) logUnexpected(error, this.operation);
    }
  }

  /** The client is gone: the engine frees everything within one step. */
  leave(): void {
    if (this.#over) return;
    this.#left = true;
    this.#abort.abort();
  }
  get left(): boolean {
    return this.#left;
  }
  usage(): z.infer<typeof usageSchema> {
    return this.#meter.usage();
  }
  timings(): z.infer<typeof timingsSchema> {
    return this.#meter.timings();
  }
}

/** Events of several iterators in the order they come; leaving the loop leaves them all. */
export async function* merge<T>(
  sources: readonly AsyncGenerator<T, void, void>[],
): AsyncGenerator<{ index: number; event: T }, void, void> {
  const next = (index: number) => sources[index].next().then((result) => ({ index, result }));
  const pending = new Map(sources.map((_, i) => [i, next(i)]));
  try {
    while (pending.size > 0) {
      const { index, result } = await Promise.race(pending.values());
      if (result.done) pending.delete(index);
      else {
        pending.set(index, next(index));
        yield { index, event: result.value };
      }
    }
  } finally {
    for (const p of pending.values()) p.catch(() => {}); // one error is enough
    for (const s of sources) s.return().catch(() => {});
  }
}

/** Counts and times one request. */
class Meter {
  readonly #start = performance.now();
  readonly #startEpochMs = Date.now();
  readonly #span: Span;
  readonly #attributes: Attributes;
  readonly #prompts = new Map<number, { tokens: number; cached: number }>();
  readonly #timings: Timings[] = [];
  #firstToken: number | null = null;
  readonly #tokensOf = new Map<Choice, number>();
  /** Tokens of choices under way, and of those that ended (by the engine's count). */
  #tokensSeen = 0;
  #tokensEnded = 0;

  constructor(
    readonly telemetry: Telemetry,
    what: { operation: string; model: string; request: Request },
  ) {
    const { operation, model, request } = what;
    this.#attributes = {
      "gen_ai.operation.name": operation,
      "gen_ai.provider.name": "oatmill",
      "gen_ai.request.model": model,
    };
    this.#span = telemetry.startSpan(`${operation} ${model}`, {
      parent: telemetry.contextOf(request.headers),
      kind: SpanKind.SERVER,
      attributes: this.#attributes,
    });
  }

  see(choice: Choice, event: TextEvent): void {
    if (event.type === "prompt") {
      this.#prompts.set(choice.promptIndex, { tokens: event.promptTokens, cached: event.cachedTokens });
      return;
    }
    if (event.type === "text") {
      this.#tokensSeen++;
      this.#tokensOf.set(choice, (this.#tokensOf.get(choice) ?? 0) + 1);
      this.#firstToken ??= performance.now();
      return;
    }
    // The token that completes a stop string comes with the end.
    if (event.stop !== null) this.#firstToken ??= performance.now();
    this.#timings.push(event.timings);
    this.#tokensSeen -= this.#tokensOf.get(choice) ?? 0;
    this.#tokensEnded += event.timings.completionTokens;
    this.#spans(event.timings);
  }
  #spans(t: Timings): void {
    const endMs = Date.now();
    const decodeStart = endMs - t.decodeMs, prefillStart = decodeStart - t.prefillMs;
    const queueStart = Math.max(this.#startEpochMs, prefillStart - t.queueMs);
    const { telemetry } = this;
    telemetry.spanOf("queue", this.#span, { startMs: queueStart, endMs: prefillStart });
    telemetry.spanOf("prefill", this.#span, { startMs: prefillStart, endMs: decodeStart }, {
      "gen_ai.usage.input_tokens": t.promptTokens,
    });
    telemetry.spanOf("decode", this.#span, { startMs: decodeStart, endMs }, {
      "gen_ai.usage.output_tokens": t.completionTokens,
    });
  }

  /** Have all choices come to their end? */
  complete(choices: number): boolean {
    return this.#timings.length === choices;
  }
  end(errorType: string | null): void {
    const { telemetry } = this;
    const seconds = (performance.now() - this.#start) / 1000;
    const attributes = errorType === null
      ? this.#attributes
      : { ...this.#attributes, "error.type": errorType };
    telemetry.record("requestDuration", seconds, attributes);
    this.#recordTokens(seconds);
    const { prompt_tokens, completion_tokens } = this.usage();
    this.#span.setAttributes({
      "gen_ai.usage.input_tokens": prompt_tokens,
      "gen_ai.usage.output_tokens": completion_tokens,
    });
    if (errorType !== null) failSpan(this.#span, errorType);
    this.#span.end();
    log(errorType === null ? "info" : "warn", "generation", {
      operation: this.#attributes["gen_ai.operation.name"] as string,
      model: this.#attributes["gen_ai.request.model"] as string,
      seconds: Number(seconds.toFixed(4)),
      prompt_tokens,
      completion_tokens,
      ...errorType === null ? {} : { error: errorType },
    }, this.#span);
  }
  #recordTokens(seconds: number): void {
    const { telemetry } = this;
    const attributes = this.#attributes;
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = this.usage();
    telemetry.record("tokenUsage", prompt_tokens, { ...attributes, "gen_ai.token.type": "input" });
    telemetry.record("tokenUsage", completion_tokens, { ...attributes, "gen_ai.token.type": "output" });
    telemetry.add("promptTokens", prompt_tokens, attributes);
    telemetry.add("cachedTokens", prompt_tokens_details.cached_tokens, attributes);
    telemetry.add("outputTokens", completion_tokens, attributes);
    if (this.#firstToken !== null) {
      const ttft = (this.#firstToken - this.#start) / 1000;
      telemetry.record("timeToFirstToken", ttft, attributes);
      // Choices run side by side: a choice's share of the tokens is what one stream sees.
      const each = completion_tokens / Math.max(1, this.#timings.length);
      if (each > 1) telemetry.record("timePerOutputToken", (seconds - ttft) / (each - 1), attributes);
    }
    for (const t of this.#timings) {
      telemetry.record("queueTime", t.queueMs / 1000, attributes);
      const rate = perSecond(t.completionTokens - 1, t.decodeMs);
      if (rate !== null) telemetry.record("outputTokensPerSecond", rate, attributes);
    }
  }

  usage(): z.infer<typeof usageSchema> {
    const prompts = [...this.#prompts.values()];
    const prompt = prompts.reduce((sum, p) => sum + p.tokens, 0);
    const cached = prompts.reduce((sum, p) => sum + p.cached, 0);
    const completion = this.#tokensSeen + this.#tokensEnded;
    return {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: cached },
    };
  }
  /** As llama.cpp's server reports them; sums over the choices, which share the time. */
  timings(): z.infer<typeof timingsSchema> {
    const longest = (f: (t: Timings) => number) => Math.max(0, ...this.#timings.map(f));
    const { prompt_tokens, completion_tokens } = this.usage();
    const promptMs = longest((t) => t.prefillMs), predictedMs = longest((t) => t.decodeMs);
    return {
      prompt_n: prompt_tokens,
      prompt_ms: promptMs,
      prompt_per_second: perSecond(prompt_tokens, promptMs),
      predicted_n: completion_tokens,
      predicted_ms: predictedMs,
      predicted_per_second: perSecond(completion_tokens, predictedMs),
      queue_ms: longest((t) => t.queueMs),
    };
  }
}

const perSecond = (n: number, ms: number): number | null => n > 0 && ms > 0 ? n * 1000 / ms : null;
