/** The threads of `bench kernels`. */

import type { Task, WorkerStart } from "./_kernels_worker.ts";

/** A task without what the pool fills in. */
export type PoolTask = Omit<Task, "threads" | "barrier">;

export class Pool {
  private constructor(
    private readonly workers: readonly Worker[],
    private readonly memory: WebAssembly.Memory,
    private readonly barrier: number,
  ) {}

  /** @param barrier address of four bytes that are the pool's own */
  static async start(threads: number, start: WorkerStart, barrier: number): Promise<Pool> {
    const url = new URL("./_kernels_worker.ts", import.meta.url);
    const pool = new Pool(
      Array.from({ length: threads }, () => new Worker(url, { type: "module" })),
      start.memory,
      barrier,
    );
    await pool.ask(threads, () => start);
    return pool;
  }

  /**
   * Runs a task on the first `threads` threads. A run lasts as long as its slowest thread: a thread's own best could
   * be one where the others had already finished.
   * @returns milliseconds of the best run
   */
  async best(threads: number, task: (thread: number) => PoolTask): Promise<number> {
    new Int32Array(this.memory.buffer, this.barrier, 1)[0] = 0;
    const times = await this.ask(
      threads,
      (thread) => ({ ...task(thread), threads, barrier: this.barrier }),
    );
    return Math.min(...times[0].map((_, run) => Math.max(...times.map((thread) => thread[run]))));
  }

  private ask(threads: number, message: (thread: number) => Task | WorkerStart): Promise<number[][]> {
    return Promise.all(
      this.workers.slice(0, threads).map((worker, i) =>
        new Promise<number[]>((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = (event) => reject(new Error(event.message));
          worker.postMessage(message(i));
        })
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const worker of this.workers) worker.terminate();
  }
}
