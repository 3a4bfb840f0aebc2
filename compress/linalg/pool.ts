/**
 * One worker per core, each with its own single-threaded ONNX Runtime. Jobs are plain data (shared memory where it is
 * large); what they do is the worker module's table (worker.ts). Large jobs run together only as far as memory allows; the
 * fewer, the more threads each has for its matrix products.
 */
import type { JobKind, JobOf, JobRequest, JobResponse, ResultOf } from "../worker.ts";

interface Pending {
  readonly job: JobOf<JobKind>;
  readonly bytes: number;
  readonly transfer: Transferable[];
  readonly resolve: (result: never) => void;
  readonly reject: (reason: unknown) => void;
}

/** Memory for jobs when nothing is said: half of the 8 GiB in which a 7B model shall compress. */
const JOB_BYTES = 4 * 2 ** 30;

/** A collection behind such a job takes a thousandth of its time. */
const LARGE_JOB_BYTES = 2 ** 28;

export class LinalgPool {
  readonly #workers: { readonly worker: Worker; current: Pending | null }[] = [];
  readonly #queue: Pending[] = [];
  #ended: Error | null = null;

  /** @param memoryBytes what jobs that run at once may take together */
  constructor(
    readonly threads: number = navigator.hardwareConcurrency,
    readonly memoryBytes: number = JOB_BYTES,
  ) {
    for (let i = 0; i < threads; i++) this.#start();
  }

  #start(): void {
    const worker = new Worker(new URL("../worker.ts", import.meta.url), { type: "module" });
    const slot = { worker, current: null as Pending | null };
    worker.onmessage = ({ data }: MessageEvent<JobResponse>) => {
      const { current } = slot;
      slot.current = null;
      if ("error" in data) current?.reject(data.error);
      else current?.resolve(data.result as never);
      this.#next();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(new Error(`Compression worker failed: ${event.message}`)); // a dead one would keep its next job
    };
    this.#workers.push(slot);
  }

  /** Jobs of so many bytes that may run at once: at least one, at most one for each thread. */
  concurrent(bytes: number): number {
    return Math.max(1, Math.min(this.threads, Math.floor(this.memoryBytes / bytes)));
  }

  /**
   * Queues one job; the first free worker takes it.
   * @param bytes about what the job takes beyond its shared memory, if that is much
   * @param transfer what of the job is handed over instead of copied
   */
  run<K extends JobKind>(job: JobOf<K>, bytes = 0, transfer: Transferable[] = []): Promise<ResultOf<K>> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, bytes, transfer, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    for (const slot of this.#workers) {
      if (slot.current) continue;
      const next = this.#take();
      if (!next) return;
      slot.current = next;
      const threads = Math.floor(this.threads / this.concurrent(next.bytes));
      const large = next.bytes >= LARGE_JOB_BYTES;
      slot.worker.postMessage({ job: next.job, threads, large } satisfies JobRequest, next.transfer);
    }
  }

  /** The first job in the queue that there is memory for; the first of all when nothing runs. */
  #take(): Pending | null {
    const running = this.#workers.flatMap(({ current }) => current ? [current.bytes] : []);
    const free = this.memoryBytes - running.reduce((a, b) => a + b, 0);
    const at = running.length === 0 ? 0 : this.#queue.findIndex(({ bytes }) => bytes <= free);
    return this.#queue.splice(at, at < 0 ? 0 : 1)[0] ?? null;
  }

  /** Ends the workers; jobs that are not done are rejected. */
  close(): void {
    this.#end(new Error("The pool was closed"));
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    for (const { reject } of this.#queue.splice(0)) reject(reason);
    for (const slot of this.#workers.splice(0)) {
      slot.current?.reject(reason);
      slot.worker.terminate();
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
