/** What a running compression tells about itself: progress, seconds of each phase, peak memory, and whether to stop. */
import { OatmillError } from "../errors.ts";
import type { BlockPlace, CompressOptions, CompressPhase, CompressProgress } from "./types.ts";

const RSS_INTERVAL_MS = 100;
/** Steps that took less are told to nobody. */
const LEAST_STEP_MS = 1;

interface Behind {
  readonly phase: CompressPhase;
  readonly work: Promise<unknown>;
  readonly block?: BlockPlace;
}
interface StepPlace {
  readonly block?: BlockPlace;
  /** Work of another phase that the step queues behind: until it has ended the time is that phase's. */
  readonly behind?: Behind;
}
interface StepTimes {
  readonly start: number;
  readonly end: number;
}

/** What a run knows of its own course. */
export interface ProgressSnapshot {
  readonly phases: Partial<Record<CompressPhase, number>>;
  readonly peakRssBytes: number;
  readonly seconds: number;
  readonly errors: { readonly sum: number; readonly layers: number };
}

/** Says of a run that it goes on with `done` blocks behind it. */
export const resumedAt = (done: number, blocks: number): string => `Resumed at block ${done} of ${blocks}`;

export class ProgressReporter implements Disposable {
  readonly phases: Partial<Record<CompressPhase, number>> = {};
  peakRssBytes = 0;
  /** Of the dense model, once it is measured. */
  densePerplexity: number | null = null;
  readonly #startMs = performance.now();
  /** Of earlier runs. */
  #secondsBefore = 0;
  readonly #options: Pick<CompressOptions, "signal" | "onProgress" | "onStep">;
  readonly #timer: ReturnType<typeof setInterval>;
  #errors = { sum: 0, layers: 0 };

  constructor(options: Pick<CompressOptions, "signal" | "onProgress" | "onStep">) {
    this.#options = options;
    this.#timer = setInterval(() => this.#sampleRss(), RSS_INTERVAL_MS);
  }

  /**
   * Runs one step of a phase, adds its time and tells of it.
   * @throws {OatmillError} cancelled, before the step
   */
  async time<T>(
    phase: CompressPhase,
    step: () => T | Promise<T>,
    { block, behind }: StepPlace = {},
  ): Promise<T> {
    this.checkCancelled();
    const start = performance.now();
    let own = behind ? Infinity : start;
    behind?.work.finally(() => own = performance.now()).catch(() => {});
    try {
      return await step();
    } finally {
      const end = performance.now(), turn = Math.min(own, end);
      if (behind) this.#add(behind.phase, { start, end: turn }, behind.block);
      this.#add(phase, { start: turn, end }, block);
      this.#sampleRss();
    }
  }

  #add(phase: CompressPhase, { start, end }: StepTimes, block: BlockPlace | null = null): void {
    this.phases[phase] = (this.phases[phase] ?? 0) + (end - start) / 1000;
    if (end - start < LEAST_STEP_MS) return;
    const zero = Date.now() - performance.now();
    this.#options.onStep?.({ phase, block, startMs: zero + start, endMs: zero + end });
  }

  /** Of this run and those before it. */
  get seconds(): number {
    return this.#secondsBefore + (performance.now() - this.#startMs) / 1000;
  }

  /** For a later run. */
  snapshot(): ProgressSnapshot {
    const { phases, peakRssBytes, seconds } = this;
    return { phases: { ...phases }, peakRssBytes, seconds, errors: { ...this.#errors } };
  }

  /** Goes on where an earlier run was. */
  restore({ phases, peakRssBytes, seconds, errors }: ProgressSnapshot): void {
    Object.assign(this.phases, phases);
    this.peakRssBytes = Math.max(this.peakRssBytes, peakRssBytes);
    this.#secondsBefore = seconds;
    this.#errors = { ...errors };
  }

  checkCancelled(): void {
    if (this.#options.signal?.aborted) {
      throw new OatmillError("cancelled", "The compression was cancelled", null, {
        cause: this.#options.signal.reason,
      });
    }
  }

  report(
    phase: CompressPhase,
    done: number,
    total: number,
    message?: string,
    more: Pick<CompressProgress, "loss" | "tokensPerSecond" | "etaSeconds"> = {},
  ): void {
    const progress: CompressProgress = {
      phase,
      done,
      total,
      ...more,
      ...(message === undefined ? {} : { message }),
      ...(this.densePerplexity === null ? {} : { densePerplexity: this.densePerplexity }),
      ...(this.#errors.layers ? { error: this.#errors.sum / this.#errors.layers } : {}),
    };
    this.#options.onProgress?.(progress);
  }

  addLayerError(error: number): void {
    this.#errors.sum += error;
    this.#errors.layers++;
  }

  #sampleRss(): void {
    this.peakRssBytes = Math.max(this.peakRssBytes, Deno.memoryUsage().rss);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
