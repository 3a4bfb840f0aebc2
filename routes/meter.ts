/** What one request's generations cost: spans queue, prefill and decode, the latency metrics, usage and timings. */
import type { z } from "@hono/zod-openapi";
import type { TextEvent } from "../engine/text.ts";
import type { Timings } from "../engine/types.ts";
import { type Attributes, failSpan, type Span, SpanKind, type Telemetry } from "../telemetry/telemetry.ts";
import type { Choice } from "./generation.ts";
import { currentAccount, currentRecord } from "./request_context.ts";
import type { timingsSchema, usageSchema } from "./sampling.ts";

export class Meter {
  readonly #start = performance.now();
  readonly #startEpochMs = Date.now();
  readonly #span: Span;
  readonly #endRecord = currentRecord()?.begin();
  readonly #account = currentAccount();
  #charged = 0;
  readonly #attributes: Attributes;
  /** For the log: as an attribute of metrics it would have no bound. */
  readonly #logged: { readonly version: string; readonly adapter?: string };
  readonly #prompts = new Map<number, { tokens: number; cached: number }>();
  readonly #timings: Timings[] = [];
  #firstToken: number | null = null;
  readonly #tokensOf = new Map<Choice, number>();
  /** Tokens of choices under way, and of those that ended (by the engine's count). */
  #tokensSeen = 0;
  #tokensEnded = 0;

  constructor(
    readonly telemetry: Telemetry,
    what: {
      operation: string;
      model: string;
      version: string;
      adapter: string | null;
      request: Request;
    },
  ) {
    const { operation, model, version, adapter, request } = what;
    this.#logged = { version, ...adapter === null ? {} : { adapter } };
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
    this.#count(choice, event);
    if (this.#account === undefined) return;
    const { total_tokens } = this.usage();
    this.#account.charge(total_tokens - this.#charged);
    this.#charged = total_tokens;
  }
  #count(choice: Choice, event: TextEvent): void {
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
    this.#endRecord?.({
      operation: this.#attributes["gen_ai.operation.name"] as string,
      model: this.#attributes["gen_ai.request.model"] as string,
      ...this.#logged,
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
