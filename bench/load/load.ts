/**
 * One load on one server: open (requests leave when they are due, whatever the server does) or closed (so many users, each
 * waiting for its answer). A library: it prints nothing and ends nothing; what is cut off by the signal is summed up too.
 */
import { type ArrivalOptions, arrivalTimes } from "./arrivals.ts";
import { type Exchange, exchange, type Target } from "./client.ts";
import { LatencyHistogram, type LatencyStats } from "./histogram.ts";
import { waitUntil } from "./pace.ts";
import { Places } from "./places.ts";
import type { PromptSource } from "./prompts.ts";
import { LoadRecord, type RecordSummary, type RequestRow, requestRow } from "./record.ts";
import type { Slo } from "./slo.ts";
import { loadWarnings } from "./warnings.ts";

export interface OpenLoad {
  readonly kind: "open";
  readonly arrivals: ArrivalOptions;
  /** Further requests wait on the client's side: their latency counts from when they were due. */
  readonly maxInFlight: number;
}
export interface ClosedLoad {
  readonly kind: "closed";
  readonly concurrency: number;
}
/** How long; the first that is reached ends it. At least one is finite. */
export interface LoadLimit {
  readonly requests: number;
  readonly seconds: number;
}

export interface LoadPlan {
  readonly target: Target;
  readonly load: OpenLoad | ClosedLoad;
  /** Of what is measured: the warm-up comes before it. */
  readonly limit: LoadLimit;
  /** Sent first under the same load, not measured; null is none. */
  readonly warmup: LoadLimit | null;
  readonly slo: Slo;
  readonly seed: number;
  readonly prompts: PromptSource;
}

export interface LoadProgress {
  readonly warmingUp: boolean;
  /** Measured requests that have ended. */
  readonly requests: number;
  readonly errors: number;
  readonly inFlight: number;
  /** Of the measurement. */
  readonly seconds: number;
  /** How much of the limit is done, from 0 to 1. */
  readonly share: number;
  readonly outputTokensPerSecond: number;
  readonly ttftP50Ms: number | null;
  readonly ttftP99Ms: number | null;
}

export interface LoadOptions {
  readonly signal?: AbortSignal;
  /** Called a few times a second. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** Called with each measured request, when it has ended. */
  readonly onRequest?: (row: RequestRow) => void;
  /** Microseconds of processor time that this process has used, where the load has it for itself. */
  readonly cpuTimeUs?: () => number;
}

/** What the client itself cost. */
export interface ClientCost {
  /** From when a request was due and had a place until it was sent; of an open loop. */
  readonly schedule_lag_ms: LatencyStats | null;
  /** Share of one core; null where it was not asked for. */
  readonly cpu_share: number | null;
  readonly cpu_us_per_token: number | null;
}

export interface LoadSummary extends RecordSummary {
  readonly load: OpenLoad | ClosedLoad;
  /** Requests a second that were due, as drawn; null in a closed loop. */
  readonly offered_per_second: number | null;
  /** Latencies count from when a request was due, not from when it was sent. */
  readonly corrected: boolean;
  readonly warmup_requests: number;
  readonly max_in_flight: number;
  /** Requests that were due while all places were taken. */
  readonly held_back: number;
  readonly interrupted: boolean;
  readonly client: ClientCost;
  readonly warnings: readonly string[];
}

const PROGRESS_MS = 250;
/** Of a closed loop after an error: a server that refuses at once would be asked thousands of times a second. */
const ERROR_PAUSE_MS = 100;

/** Never rejects for what a server does. @throws whatever `onProgress` or `onRequest` throw */
export async function runLoad(plan: LoadPlan, options: LoadOptions = {}): Promise<LoadSummary> {
  return await new LoadRun(plan, options).run();
}

class LoadRun {
  readonly #lag = new LatencyHistogram();
  readonly #signal: AbortSignal;
  readonly #places: Places | null;
  readonly #running = new Set<Promise<Exchange>>();
  /** Of the measurement; null while warming up. */
  #record: LoadRecord | null = null;
  #measuredFromMs = 0;
  #cpuFromUs = 0;
  #taken = { warmup: 0, measured: 0 };
  #heldBack = 0;
  /** After the start of the measurement. */
  #lastDueMs = 0;
  #maxInFlight = 0;
  #failure: unknown = null;

  constructor(readonly plan: LoadPlan, readonly options: LoadOptions) {
    this.#signal = options.signal ?? new AbortController().signal;
    this.#places = plan.load.kind === "open" ? new Places(plan.load.maxInFlight) : null;
  }

  async run(): Promise<LoadSummary> {
    const { onProgress } = this.options;
    const timer = onProgress &&
      setInterval(() => this.#guard(() => onProgress(this.#progress())), PROGRESS_MS);
    const leave = () => this.#places?.close();
    this.#signal.addEventListener("abort", leave);
    try {
      if (this.plan.load.kind === "open") await this.#open(this.plan.load);
      else await this.#closed(this.plan.load);
      await Promise.all(this.#running);
    } finally {
      clearInterval(timer);
      this.#signal.removeEventListener("abort", leave);
    }
    if (this.#failure !== null) throw this.#failure;
    return this.#summary();
  }
  #guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#failure ??= error ?? new Error("A callback failed");
    }
  }
  get #stopped(): boolean {
    return this.#signal.aborted || this.#failure !== null;
  }

  async #open({ arrivals }: OpenLoad): Promise<void> {
    const { seed, warmup } = this.plan, startMs = performance.now();
    // The warm-up has arrivals of its own, so that the measured ones are the same with any.
    if (warmup) await this.#openPart(beforeRamp(arrivals), -1 - seed, startMs, warmup);
    const fromMs = warmup ? performance.now() : startMs;
    this.#measure(fromMs);
    await this.#openPart(arrivals, seed, fromMs, this.plan.limit);
  }
  async #openPart(arrivals: ArrivalOptions, seed: number, startMs: number, limit: LoadLimit): Promise<void> {
    let sent = 0;
    for (const dueAfterMs of arrivalTimes(arrivals, seed)) {
      if (sent++ >= limit.requests || dueAfterMs >= 1000 * limit.seconds) break;
      await waitUntil(startMs + dueAfterMs, this.#signal);
      if (this.#stopped) return;
      this.#lastDueMs = dueAfterMs;
      await this.#sendDue(startMs + dueAfterMs);
      if (this.#stopped) return;
    }
    // A part that is bounded by time lasts that time.
    if (sent <= limit.requests && Number.isFinite(limit.seconds)) {
      await waitUntil(startMs + 1000 * limit.seconds, this.#signal);
    }
  }
  async #sendDue(dueMs: number): Promise<void> {
    const places = this.#places!, place = places.take();
    if (place && this.#record) this.#heldBack++;
    await place;
    if (this.#stopped) return;
    if (this.#record) this.#lag.record(performance.now() - Math.max(dueMs, places.freedMs));
    this.#start(dueMs);
  }
  /** @param dueMs null where the moment of sending counts */
  #start(dueMs: number | null): Promise<Exchange> {
    const record = this.#record, { target, prompts } = this.plan;
    this.#taken[record ? "measured" : "warmup"]++;
    const running = exchange(target, prompts.next(), this.#signal).then((result) => {
      this.#places?.give();
      if (record) this.#guard(() => this.#add(record, result, dueMs ?? result.sentMs));
      return result;
    }).finally(() => this.#running.delete(running));
    this.#running.add(running);
    this.#maxInFlight = Math.max(this.#maxInFlight, this.#running.size);
    return running;
  }

  #add(record: LoadRecord, result: Exchange, dueMs: number): void {
    record.add(result, dueMs);
    this.options.onRequest?.(requestRow(result, dueMs, this.#measuredFromMs));
  }

  async #closed({ concurrency }: ClosedLoad): Promise<void> {
    const startMs = performance.now(), { warmup } = this.plan;
    if (!warmup) this.#measure(startMs);
    const users = Array.from({ length: concurrency }, async () => {
      while (warmup && !this.#record && !this.#reached(warmup, this.#taken.warmup, startMs)) {
        await this.#user();
      }
      if (!this.#record) this.#measure(performance.now());
      while (!this.#reached(this.plan.limit, this.#taken.measured, this.#measuredFromMs)) await this.#user();
    });
    await Promise.all(users);
  }
  /** One request of a user, who does not ask again at once when it failed. */
  async #user(): Promise<void> {
    const { error } = await this.#start(null);
    if (error) await waitUntil(performance.now() + ERROR_PAUSE_MS, this.#signal);
  }
  #reached({ requests, seconds }: LoadLimit, taken: number, fromMs: number): boolean {
    return this.#stopped || taken >= requests || performance.now() - fromMs >= 1000 * seconds;
  }

  #measure(fromMs: number): void {
    this.#measuredFromMs = fromMs;
    this.#cpuFromUs = this.options.cpuTimeUs?.() ?? 0;
    this.#record = new LoadRecord(fromMs, this.plan.slo);
  }

  #progress(): LoadProgress {
    const { limit } = this.plan, record = this.#record;
    const seconds = record ? (performance.now() - this.#measuredFromMs) / 1000 : 0;
    const requests = record?.requests ?? 0, measured = (record?.ttft.count ?? 0) > 0;
    return {
      warmingUp: record === null,
      requests,
      errors: record?.errors ?? 0,
      inFlight: this.#running.size,
      seconds,
      share: Math.min(1, Math.max(seconds / limit.seconds, requests / limit.requests)),
      outputTokensPerSecond: seconds > 0 ? (record?.outputTokens ?? 0) / seconds : 0,
      ttftP50Ms: measured ? record!.ttft.percentile(50) : null,
      ttftP99Ms: measured ? record!.ttft.percentile(99) : null,
    };
  }

  #summary(): LoadSummary {
    const { load, slo } = this.plan, sendingS = load.kind === "open" ? this.#sendingSeconds(load) : null;
    const record = (this.#record ?? new LoadRecord(performance.now(), slo)).summary(sendingS ?? undefined);
    const client = this.#cost(record);
    const summary = {
      load,
      ...record,
      offered_per_second: sendingS === null ? null : this.#taken.measured / sendingS,
      corrected: load.kind === "open",
      warmup_requests: this.#taken.warmup,
      max_in_flight: this.#maxInFlight,
      held_back: this.#heldBack,
      interrupted: this.#signal.aborted,
      client,
    };
    return { ...summary, warnings: loadWarnings(summary) };
  }
  /** For how long requests were due: until the limit's end, or until one more would have been due. */
  #sendingSeconds({ arrivals: { rate } }: OpenLoad): number {
    const { limit } = this.plan, untilNext = this.#lastDueMs / 1000 + 1 / rate;
    return this.#stopped || this.#taken.measured >= limit.requests ? untilNext : limit.seconds;
  }
  #cost({ output_tokens }: RecordSummary): ClientCost {
    const { cpuTimeUs } = this.options, wallUs = 1000 * (performance.now() - this.#measuredFromMs);
    const cpuUs = cpuTimeUs && this.#record ? cpuTimeUs() - this.#cpuFromUs : null;
    return {
      schedule_lag_ms: this.#lag.stats(),
      cpu_share: cpuUs === null ? null : cpuUs / wallUs,
      cpu_us_per_token: cpuUs === null || output_tokens === 0 ? null : cpuUs / output_tokens,
    };
  }
}

/** A ramp's warm-up stays at the rate that the ramp begins with. */
const beforeRamp = (arrivals: ArrivalOptions): ArrivalOptions =>
  arrivals.kind === "ramp" ? { ...arrivals, kind: "poisson", rate: arrivals.ramp.from } : arrivals;
