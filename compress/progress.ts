/** What a running compression tells about itself: progress, seconds of each phase, peak memory, and whether to stop. */
import { OatmillError } from "../errors.ts";
import type { CompressOptions, CompressPhase, CompressProgress } from "./types.ts";

const RSS_INTERVAL_MS = 100;

export class ProgressReporter implements Disposable {
  readonly phases: Partial<Record<CompressPhase, number>> = {};
  peakRssBytes = 0;
  readonly #options: Pick<CompressOptions, "signal" | "onProgress">;
  readonly #timer: ReturnType<typeof setInterval>;
  #errors = { sum: 0, layers: 0 };

  constructor(options: Pick<CompressOptions, "signal" | "onProgress">) {
    this.#options = options;
    this.#timer = setInterval(() => this.#sampleRss(), RSS_INTERVAL_MS);
  }

  /** Runs one step of a phase and adds its time. @throws {OatmillError} cancelled, before the step */
  async time<T>(phase: CompressPhase, step: () => T | Promise<T>): Promise<T> {
    this.checkCancelled();
    const start = performance.now();
    try {
      return await step();
    } finally {
      this.phases[phase] = (this.phases[phase] ?? 0) + (performance.now() - start) / 1000;
      this.#sampleRss();
    }
  }

  checkCancelled(): void {
    if (this.#options.signal?.aborted) {
      throw new OatmillError("cancelled", "The compression was cancelled", null, {
        cause: this.#options.signal.reason,
      });
    }
  }

  report(phase: CompressPhase, done: number, total: number, message?: string): void {
    const progress: CompressProgress = {
      phase,
      done,
      total,
      ...(message === undefined ? {} : { message }),
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
