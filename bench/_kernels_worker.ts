/** Runs linear kernels over its own copies of a packed layer and reports the best time. One per thread of bench/kernels.ts. */

import type { TileSize } from "../kernels/abi.ts";
import { bindKernels, type Kernels } from "../kernels/load.ts";

export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly modules: Map<string, WebAssembly.Module>;
}

/** Copies of one layer, run after each other. */
export interface LinearTask {
  readonly kind: "linear";
  readonly name: string;
  readonly batch: TileSize;
  /** Address of the first copy, bytes of each, how many. */
  readonly weights: number;
  readonly layerBytes: number;
  readonly copies: number;
  /** xa, xb, xs, y, yStride, groups, chunks, formatArgument, accumulate, consts of abi.ts. */
  readonly rest: readonly [number, number, number, number, number, number, number, number, number, number];
  readonly repeats: number;
}

export interface ReadTask {
  readonly kind: "read";
  readonly at: number;
  readonly bytes: number;
  readonly repeats: number;
}

export type Task = LinearTask | ReadTask;

/** Milliseconds of the best of `repeats` runs. */
export function runTask(kernels: Kernels, task: Task): number {
  const once = task.kind === "read"
    ? () => void kernels.base.max(task.at, task.bytes / 4)
    : linearRun(kernels, task);
  let best = Infinity;
  for (let i = 0; i < task.repeats; i++) {
    const start = performance.now();
    once();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

function linearRun(kernels: Kernels, task: LinearTask): () => void {
  const kernel = kernels.linear(task.name, task.batch);
  return () => {
    for (let i = 0; i < task.copies; i++) kernel(task.weights + i * task.layerBytes, ...task.rest);
  };
}

if ("WorkerGlobalScope" in globalThis) {
  let kernels: Kernels;
  self.onmessage = ({ data }: MessageEvent<WorkerStart | Task>) => {
    if ("memory" in data) kernels = bindKernels(data.modules, data.memory);
    self.postMessage("memory" in data ? 0 : runTask(kernels, data));
  };
}
