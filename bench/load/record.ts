/** What the requests of one load measured, in bounded memory, and their summary. */
import type { ErrorKind, Exchange } from "./client.ts";
import { LatencyHistogram, type LatencyStats } from "./histogram.ts";
import { Series, type SeriesPoint } from "./series.ts";
import { meets, type Slo } from "./slo.ts";

/** One request; milliseconds. Latencies count from `intendedMs`, in a closed loop the moment of sending. */
export interface RequestTimes {
  readonly intendedMs: number;
  readonly ttftMs: number;
  readonly e2eMs: number;
  /** Per output token after the first; null for one token. */
  readonly tpotMs: number | null;
}

const LATENCIES = ["ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"] as const;
export type LatencyName = typeof LATENCIES[number];

export interface RecordSummary extends Readonly<Record<LatencyName, LatencyStats | null>> {
  /** That ended, well or not. */
  readonly requests: number;
  readonly succeeded: number;
  readonly errors: number;
  readonly errors_by_kind: Readonly<Record<string, { readonly count: number; readonly message: string }>>;
  /** Cut off when the caller ended the load; counted nowhere else. */
  readonly unfinished: number;
  /** From the start of the measurement until the last of its requests had ended, and at least as long as requests were sent. */
  readonly duration_s: number;
  /** Of those that succeeded. */
  readonly input_tokens: number;
  /** Of the input, that the server says to have had from other prompts. */
  readonly cached_input_tokens: number;
  readonly output_tokens: number;
  /** Who counted output tokens: the server's usage, or the pieces of its stream (one may hold several tokens). */
  readonly tokens_counted_by: "usage" | "chunks" | "both";
  readonly chunks_per_token: number | null;
  readonly requests_per_second: number;
  readonly input_tokens_per_second: number;
  readonly output_tokens_per_second: number;
  readonly total_tokens_per_second: number;
  /** Of the best second. */
  readonly peak_output_tokens_per_second: number;
  readonly in_flight_mean: number;
  /** Requests a second that succeeded and met every service level; without levels, that succeeded. */
  readonly goodput: number;
  /** Share of all requests that did; errors do not. */
  readonly slo_attainment: number | null;
  readonly slo: Slo;
  /** From the moment of sending: what coordinated omission would show. */
  readonly from_send: { readonly ttft_ms: LatencyStats | null; readonly e2e_ms: LatencyStats | null };
  readonly distribution: Readonly<Record<LatencyName, (readonly [percent: number, ms: number])[]>>;
  readonly series: readonly SeriesPoint[];
}

export class LoadRecord {
  #startMs: number;
  #endMs: number;
  #series: Series;
  #succeeded = 0;
  #good = 0;
  #unfinished = 0;
  #busyMs = 0;
  readonly #tokens = { input: 0, cached: 0, output: 0, chunks: 0 };
  readonly #countedBy = new Set<Exchange["counted"]>();
  readonly #errors = new Map<ErrorKind, { count: number; message: string }>();
  readonly #latencies = {
    ttft_ms: new LatencyHistogram(),
    tpot_ms: new LatencyHistogram(),
    itl_ms: new LatencyHistogram(),
    e2e_ms: new LatencyHistogram(),
  } satisfies Record<LatencyName, LatencyHistogram>;
  readonly #fromSend = { ttft_ms: new LatencyHistogram(), e2e_ms: new LatencyHistogram() };

  /** @param startMs of the measurement */
  constructor(startMs: number, readonly slo: Slo) {
    this.#startMs = this.#endMs = startMs;
    this.#series = new Series(startMs);
  }

  get requests(): number {
    return this.#succeeded + this.errors;
  }
  get errors(): number {
    return [...this.#errors.values()].reduce((sum, e) => sum + e.count, 0);
  }
  get outputTokens(): number {
    return this.#tokens.output;
  }
  get ttft(): LatencyHistogram {
    return this.#latencies.ttft_ms;
  }

  /** @returns its times; null where it failed */
  add(exchange: Exchange, intendedMs: number): RequestTimes | null {
    this.#endMs = Math.max(this.#endMs, exchange.endMs);
    this.#busyMs += exchange.endMs - exchange.sentMs;
    const times = requestTimes(exchange, intendedMs);
    this.#series.add(exchange, times);
    if (times) this.#addSuccess(exchange, times);
    else this.#addFailure(exchange.error!);
    return times;
  }
  #addSuccess(exchange: Exchange, { ttftMs, e2eMs, tpotMs }: RequestTimes): void {
    this.#succeeded++;
    this.#tokens.input += exchange.inputTokens ?? 0;
    this.#tokens.cached += exchange.cachedTokens;
    this.#tokens.output += exchange.outputTokens;
    this.#tokens.chunks += exchange.chunks;
    this.#countedBy.add(exchange.counted);
    if (meets(this.slo, { ttft: ttftMs, tpot: tpotMs, e2e: e2eMs })) this.#good++;
    this.#latencies.ttft_ms.record(ttftMs);
    this.#latencies.e2e_ms.record(e2eMs);
    if (tpotMs !== null) this.#latencies.tpot_ms.record(tpotMs);
    for (const gap of exchange.gapsMs) this.#latencies.itl_ms.record(gap);
    this.#fromSend.ttft_ms.record(exchange.firstMs! - exchange.sentMs);
    this.#fromSend.e2e_ms.record(exchange.endMs - exchange.sentMs);
  }
  #addFailure({ kind, message }: NonNullable<Exchange["error"]>): void {
    if (kind === "cancelled") return void this.#unfinished++;
    const known = this.#errors.get(kind);
    if (known) known.count++;
    else this.#errors.set(kind, { count: 1, message });
  }

  /** @param leastSeconds that the measurement lasted: in the end of it there may have been no request */
  summary(leastSeconds = 1e-3): RecordSummary {
    const seconds = Math.max(leastSeconds, (this.#endMs - this.#startMs) / 1000),
      { input, cached, output, chunks } = this.#tokens;
    const series = this.#series.points(this.#startMs + 1000 * seconds);
    const each = <T>(f: (h: LatencyHistogram) => T) =>
      Object.fromEntries(LATENCIES.map((name) => [name, f(this.#latencies[name])])) as Record<LatencyName, T>;
    return {
      requests: this.requests,
      succeeded: this.#succeeded,
      errors: this.errors,
      errors_by_kind: Object.fromEntries(this.#errors),
      unfinished: this.#unfinished,
      duration_s: seconds,
      input_tokens: input,
      cached_input_tokens: cached,
      output_tokens: output,
      tokens_counted_by: this.#countedBy.size > 1 ? "both" : [...this.#countedBy][0] ?? "usage",
      chunks_per_token: output > 0 ? chunks / output : null,
      requests_per_second: this.#succeeded / seconds,
      input_tokens_per_second: input / seconds,
      output_tokens_per_second: output / seconds,
      total_tokens_per_second: (input + output) / seconds,
      peak_output_tokens_per_second: peak(series),
      in_flight_mean: this.#busyMs / 1000 / seconds,
      ...each((h) => h.stats()),
      goodput: this.#good / seconds,
      slo_attainment: this.requests > 0 ? this.#good / this.requests : null,
      slo: this.slo,
      from_send: { ttft_ms: this.#fromSend.ttft_ms.stats(), e2e_ms: this.#fromSend.e2e_ms.stats() },
      distribution: each((h) => h.curve()),
      series,
    };
  }
}

/** One measured request, as a file of them has it. */
export interface RequestRow {
  /** When it was due and when it was sent, from the start of the measurement; alike in a closed loop. */
  readonly due_s: number;
  readonly sent_s: number;
  /** From when it was due; null where it failed. */
  readonly ttft_ms: number | null;
  readonly tpot_ms: number | null;
  readonly e2e_ms: number | null;
  readonly input_tokens: number | null;
  readonly output_tokens: number;
  readonly error: string | null;
}

/** @param startMs of the measurement */
export function requestRow(exchange: Exchange, intendedMs: number, startMs: number): RequestRow {
  const times = requestTimes(exchange, intendedMs);
  const seconds = (ms: number) => Math.round(1000 * (ms - startMs)) / 1e6;
  const ms = (value: number | null | undefined) => value == null ? null : Math.round(1000 * value) / 1000;
  return {
    due_s: seconds(intendedMs),
    sent_s: seconds(exchange.sentMs),
    ttft_ms: ms(times?.ttftMs),
    tpot_ms: ms(times?.tpotMs),
    e2e_ms: ms(times?.e2eMs),
    input_tokens: exchange.inputTokens,
    output_tokens: exchange.outputTokens,
    error: exchange.error?.kind ?? null,
  };
}

export function requestTimes(exchange: Exchange, intendedMs: number): RequestTimes | null {
  const { firstMs, endMs, outputTokens, error } = exchange;
  if (error || firstMs === null) return null;
  return {
    intendedMs,
    ttftMs: firstMs - intendedMs,
    e2eMs: endMs - intendedMs,
    tpotMs: outputTokens > 1 ? (endMs - firstMs) / (outputTokens - 1) : null,
  };
}

/** Over windows of a second, in steps of a bin; of a shorter load, over all of it. */
function peak(series: readonly SeriesPoint[]): number {
  const least = Math.min(1, series.reduce((sum, p) => sum + p.seconds, 0));
  let best = 0;
  series.forEach((_, i) => {
    let seconds = 0, tokens = 0;
    for (let j = i; j < series.length && seconds < least; j++) {
      seconds += series[j].seconds;
      tokens += series[j].output_tokens_per_second * series[j].seconds;
    }
    best = Math.max(best, tokens / Math.max(least, seconds));
  });
  return best;
}
