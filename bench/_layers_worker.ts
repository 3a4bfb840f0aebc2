/** One thread of `inspect --speed`: the engine's executor on parts of a plan, timed in step with the other threads. */
import { Executor } from "../engine/executor.ts";
import type { MemoryMap } from "../engine/memory_map.ts";
import { Waiter } from "../engine/threads.ts";
import { bindKernels } from "../kernels/load.ts";
import type { Plan } from "../models/plan.ts";
import type { ModelSpec } from "../models/spec.ts";

export interface LayersStart {
  readonly type: "start";
  readonly memory: WebAssembly.Memory;
  readonly modules: ReadonlyMap<string, WebAssembly.Module>;
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly thread: number;
  readonly threads: number;
}

/** Operations `begin .. end - 1` of the plan's body on so many token rows. */
export interface LayersRun {
  readonly begin: number;
  readonly end: number;
  readonly rows: number;
}

/** Answered with milliseconds. */
export interface LayersTask {
  readonly type: "run";
  readonly run: LayersRun;
}

class Bench {
  readonly #start: LayersStart;
  readonly #kernels;
  readonly #waiter: Waiter;
  readonly #executors = new Map<string, Executor>();

  constructor(start: LayersStart) {
    this.#start = start;
    this.#kernels = bindKernels(start.modules, start.memory);
    this.#waiter = new Waiter(new Int32Array(start.memory.buffer, start.map.segments[0].control, 16));
  }

  /** The end is a `sync`: when this thread is through, all are. */
  run({ begin, end, rows }: LayersRun): number {
    const executor = this.#executor(begin, end);
    this.#waiter.barrier(this.#start.threads);
    const start = performance.now();
    executor.runBody(rows);
    return performance.now() - start;
  }

  #executor(begin: number, end: number): Executor {
    const key = `${begin}-${end}`;
    let executor = this.#executors.get(key);
    if (!executor) {
      const { plan, map, memory, ...rest } = this.#start;
      executor = new Executor({
        ...rest,
        plan: { ...plan, body: plan.body.slice(begin, end) },
        map: { ...map, body: map.body.slice(begin, end) },
        memories: [memory],
        kernels: [this.#kernels],
      });
      this.#executors.set(key, executor);
    }
    return executor;
  }
}

if ("WorkerGlobalScope" in globalThis) {
  let bench: Bench;
  self.onmessage = ({ data }: MessageEvent<LayersStart | LayersTask>) => {
    if (data.type === "start") {
      bench = new Bench(data);
      self.postMessage(0);
    } else self.postMessage(bench.run(data.run));
  };
}
