/**
 * One worker per core, each with its own single-threaded ONNX Runtime. Jobs are plain data (shared memory where it is
 * large); what they do is the worker module's table (worker.ts).
 */
import type { JobKind, JobOf, JobRequest, JobResponse, ResultOf } from "../worker.ts";

interface Pending {
  readonly job: JobOf<JobKind>;
  readonly resolve: (result: never) => void;
  readonly reject: (reason: unknown) => void;
}

export class LinalgPool {
  readonly #workers: { readonly worker: Worker; current: Pending | null }[] = [];
  readonly #queue: Pending[] = [];
  #ended: Error | null = null;

  constructor(readonly threads: number = navigator.hardwareConcurrency) {
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

  /** Queues one job; the first free worker takes it. */
  run<K extends JobKind>(job: JobOf<K>): Promise<ResultOf<K>> {
    if (this.#ended) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, resolve, reject });
      this.#next();
    });
  }

  #next(): void {
    for (const slot of this.#workers) {
      if (slot.current || this.#queue.length === 0) continue;
      slot.current = this.#queue.shift()!;
      slot.worker.postMessage({ job: slot.current.job } satisfies JobRequest);
    }
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
