/** The threads of `bench kernels`. */

import type { Task, WorkerStart } from "./_kernels_worker.ts";
import { Workers } from "./_workers.ts";

/** A task without what the pool fills in. */
export type PoolTask = Omit<Task, "threads" | "barrier">;

export class Pool {
  private constructor(
    private readonly workers: Workers,
    private readonly memory: WebAssembly.Memory,
    private readonly barrier: number,
  ) {}

  /** @param barrier address of four bytes that are the pool's own */
  static async start(threads: number, start: WorkerStart, barrier: number): Promise<Pool> {
    const workers = new Workers(new URL("./_kernels_worker.ts", import.meta.url), threads);
    await workers.ask(threads, () => start);
    return new Pool(workers, start.memory, barrier);
  }

  /**
   * Runs a task on the first `threads` threads. A run lasts as long as its slowest thread: a thread's own best could
   * be one where the others had already finished.
   * @returns milliseconds of the best run
   */
  async best(threads: number, task: (thread: number) => PoolTask): Promise<number> {
    new Int32Array(this.memory.buffer, this.barrier, 1)[0] = 0;
    const times = await this.workers.ask<number[]>(
      threads,
      (thread) => ({ ...task(thread), threads, barrier: this.barrier }),
    );
    return Math.min(...times[0].map((_, run) => Math.max(...times.map((thread) => thread[run]))));
  }

  [Symbol.dispose](): void {
    this.workers[Symbol.dispose]();
  }
}
