/** The compute threads of one engine while it loads: started first, so that they come up while the rest is prepared. */
import type { FromWorker, ToWorker } from "./worker_messages.ts";

/** All threads or none: a failure of one fails every question, and the owner terminates them. */
export class ComputeThreads {
  readonly workers: readonly Worker[];
  /** When every thread listens. */
  readonly up: Promise<void>;
  readonly #failure = Promise.withResolvers<never>();
  /** By thread, in the order of the questions. */
  readonly #answers: PromiseWithResolvers<number>[][];

  constructor(count: number) {
    this.#failure.promise.catch(() => {}); // told to whoever asks
    this.#answers = Array.from({ length: count }, () => [Promise.withResolvers<number>()]); // the first is "up"
    this.workers = this.#answers.map((_, thread) => this.#start(thread));
    this.up = this.#all().then(() => {});
    this.up.catch(() => {});
  }
  #start(thread: number): Worker {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      type: "module",
      name: `engine-${thread}`,
    });
    worker.onerror = (e) => {
      e.preventDefault();
      this.#failure.reject(new Error(`Compute thread ${thread} failed: ${e.message}`));
    };
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      const answer = this.#answers[thread].shift();
      if (data.type === "failed") answer?.reject(new Error(data.message));
      else answer?.resolve(data.type === "done" ? data.ms : 0);
    };
    return worker;
  }
  /** When every thread has answered the latest question; the longest of their times. */
  async #all(): Promise<number> {
    const times = await Promise.race([
      Promise.all(this.#answers.map((a) => a.at(-1)!.promise)),
      this.#failure.promise,
    ]);
    return Math.max(...times);
  }

  /**
   * Sends every thread its message and waits until each has done what it says. Threads need not be up yet.
   * @returns milliseconds the slowest thread worked on it
   */
  ask(message: (thread: number) => ToWorker): Promise<number> {
    this.workers.forEach((worker, thread) => {
      this.#answers[thread].push(Promise.withResolvers<number>());
      worker.postMessage(message(thread));
    });
    return this.#all();
  }

  terminate(): void {
    for (const worker of this.workers) worker.terminate();
  }
}
