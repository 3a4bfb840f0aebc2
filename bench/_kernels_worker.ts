/** One thread of `bench kernels`: calls a function of a generated module over and over, in step with the other threads. */

export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  /** By file of the manifest. */
  readonly modules: ReadonlyMap<string, WebAssembly.Module>;
}

export interface Task {
  /** Module and function. */
  readonly file: string;
  readonly name: string;
  readonly args: readonly number[];
  /** Calls of one run. The first argument grows by `stride` from one to the next, from run to run too. */
  readonly calls: number;
  readonly stride: number;
  /** After so many calls it starts anew. */
  readonly wrap: number;
  readonly runs: number;
  readonly threads: number;
  /** Address of an i32 that counts arrivals, zero at first: every run starts when all threads are there. */
  readonly barrier: number;
}

type Exports = Readonly<Record<string, (...args: number[]) => void>>;

/** Milliseconds of each run. */
function runTask(
  { memory, exports }: { memory: WebAssembly.Memory; exports: Exports },
  task: Task,
): number[] {
  const arrivals = new Int32Array(memory.buffer, task.barrier, 1);
  const call = exports[task.name];
  const [first, ...rest] = task.args;
  return Array.from({ length: task.runs }, (_, run) => {
    Atomics.add(arrivals, 0, 1);
    // Spins: a thread that slept would start late, and the others would run alone.
    while (Atomics.load(arrivals, 0) < task.threads * (run + 1));
    const start = performance.now();
    for (let i = 0; i < task.calls; i++) {
      call(first + (run * task.calls + i) % task.wrap * task.stride, ...rest);
    }
    return performance.now() - start;
  });
}

if ("WorkerGlobalScope" in globalThis) {
  let start: WorkerStart;
  const bound = new Map<string, Exports>();
  const exportsOf = (file: string): Exports => {
    const known = bound.get(file);
    if (known) return known;
    const { exports } = new WebAssembly.Instance(start.modules.get(file)!, { env: { memory: start.memory } });
    // Cast: the generator fixes the exports' types (load.ts).
    bound.set(file, exports as unknown as Exports);
    return exportsOf(file);
  };
  self.onmessage = ({ data }: MessageEvent<WorkerStart | Task>) => {
    if ("memory" in data) {
      start = data;
      self.postMessage([]);
    } else self.postMessage(runTask({ memory: start.memory, exports: exportsOf(data.file) }, data));
  };
}
