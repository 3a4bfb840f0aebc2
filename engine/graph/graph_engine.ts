/** A graph as its owner sees it: loads layers into shared memory, starts the threads, and turns their messages into promises. */
import { OatmillError } from "../../errors.ts";
import { createMemory, loadKernelModules, probeEncoding, writeConstants } from "../../kernels/load.ts";
import type { TensorEntry } from "../../models/formats/artifact_header.ts";
import type { LinearStep } from "../../models/onnx/segments.ts";
import { stagesOf } from "../../models/onnx/segments.ts";
import { decodeGraph } from "../../models/onnx/open_onnx.ts";
import { availableMemory } from "../capacity.ts";
import { gibibytes } from "../memory_map.ts";
import { chooseKernels, type TuningOptions } from "../tuning.ts";
import { mapGraph } from "./graph_map.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import type { FromGraphThread, ToGraphThread } from "./graph_messages.ts";
import { type PackedLayers, planGraph } from "./graph_plan.ts";

/** Largest WebAssembly memory with 32-bit addresses. */
const MAX_MEMORY_BYTES = 2 ** 32 - 65536;

/** A graph with `Linear` nodes and the layers that they stand for. */
export interface PackedGraph extends PackedLayers {
  readonly name: string;
  /** An encoded ONNX model. */
  readonly graph: Uint8Array<ArrayBuffer>;
  /** Fills every tensor. */
  load(destination: (entry: TensorEntry) => Uint8Array): Promise<void>;
}

export interface GraphOptions {
  readonly threads?: number;
  readonly tuning?: TuningOptions;
  /** Most runs that wait for others. */
  readonly maxWaiting?: number;
  /** How long `close()` waits for runs under way. */
  readonly closeMs?: number;
}

const DEFAULT_WAITING = 256;
/** A graph may have loops without end, which nobody can tell from long ones. */
const DEFAULT_CLOSE_MS = 30_000;

export interface GraphEngine {
  readonly threads: number;
  readonly memoryBytes: number;
  /** Runs that have not ended. */
  readonly waiting: number;
  /** Why it runs no more; null: it does. */
  readonly failure: string | null;
  /** Runs since the graph was loaded. */
  readonly runs: number;
  /**
   * Runs the graph; calls wait for one another.
   * @throws {OatmillError} invalid_request when an input is missing or the graph fails on it, rate_limit_exceeded when too
   * many wait, unavailable after close()
   */
  run(feeds: GraphTensors): Promise<GraphTensors>;
  close(): Promise<void>;
}

const stepsOf = (graph: Uint8Array<ArrayBuffer>): LinearStep[] =>
  stagesOf(decodeGraph(graph)).flatMap(({ steps }) => steps);

/** @throws {OatmillError} invalid_artifact, unsupported_format, too_large, insufficient_memory, what `load()` throws */
export async function loadGraph(model: PackedGraph, options: GraphOptions = {}): Promise<GraphEngine> {
  const threads = options.threads ?? navigator.hardwareConcurrency;
  const plan = planGraph(stepsOf(model.graph), model);
  const map = mapGraph(plan, model.tensors, { threads });
  checkMemory(model.name, map.bytes);
  const memory = createMemory(map.bytes);
  await model.load(({ name }) => {
    const { address, entry } = map.tensors[name];
    return new Uint8Array(memory.buffer, address, entry.bytes);
  });
  writeConstants(memory, map.consts, await probeEncoding());
  const modules = await loadKernelModules(
    ["base", ...plan.modules],
    await chooseKernels(model.tensors, options.tuning),
  );
  const layers = { memory, modules, map, plan, blockChunks: model.blockChunks, threads };
  const { maxWaiting = DEFAULT_WAITING, closeMs = DEFAULT_CLOSE_MS } = options;
  const memoryBytes = map.bytes + model.graph.length; // ONNX Runtime keeps the graph's own values
  const engine = new GraphThreads({ threads, memoryBytes, maxWaiting, closeMs });
  try {
    await engine.start((thread) => ({
      type: "init",
      layers: { ...layers, thread },
      graph: thread === 0 ? model.graph : null,
    }));
    return engine;
  } catch (error) {
    engine.terminate();
    throw error;
  }
}

function checkMemory(name: string, bytes: number): void {
  const limit = Math.min(MAX_MEMORY_BYTES, availableMemory() ?? Infinity);
  if (bytes <= limit) return;
  const code = limit === MAX_MEMORY_BYTES ? "too_large" : "insufficient_memory";
  throw new OatmillError(
    code,
    `The layers of "${name}" need ${gibibytes(bytes)} of memory, there are ${
      gibibytes(limit)
    }: use a higher rate or int4 values`,
  );
}

class GraphThreads implements GraphEngine {
  readonly #workers: readonly Worker[];
  readonly #ready: readonly PromiseWithResolvers<void>[];
  readonly #closed = Promise.withResolvers<void>();
  readonly #runs = new Map<number, PromiseWithResolvers<GraphTensors>>();
  #started = 0;
  #ended: Error | null = null;

  readonly threads: number;
  readonly memoryBytes: number;
  readonly #maxWaiting: number;
  readonly #closeMs: number;

  constructor(
    { threads, memoryBytes, maxWaiting, closeMs }: {
      readonly threads: number;
      readonly memoryBytes: number;
      readonly maxWaiting: number;
      readonly closeMs: number;
    },
  ) {
    this.threads = threads;
    this.memoryBytes = memoryBytes;
    this.#maxWaiting = maxWaiting;
    this.#closeMs = closeMs;
    this.#ready = Array.from({ length: threads }, () => Promise.withResolvers<void>());
    for (const { promise } of this.#ready) promise.catch(() => {}); // told to whoever starts
    this.#workers = this.#ready.map((_, thread) => this.#worker(thread));
  }

  #worker(thread: number): Worker {
    const url = new URL("./graph_worker.ts", import.meta.url);
    const worker = new Worker(url, { type: "module", name: `graph-${thread}` });
    worker.onmessage = ({ data }: MessageEvent<FromGraphThread>) => this.#receive(thread, data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new Error(`Graph thread ${thread} failed: ${event.message}`));
    };
    return worker;
  }

  get failure(): string | null {
    return this.#ended?.message ?? null;
  }
  get waiting(): number {
    return this.#runs.size;
  }

  get runs(): number {
    return this.#started - this.#runs.size;
  }

  async start(message: (thread: number) => ToGraphThread): Promise<void> {
    this.#workers.forEach((worker, thread) => worker.postMessage(message(thread)));
    await Promise.all(this.#ready.map(({ promise }) => promise));
  }

  #receive(thread: number, message: FromGraphThread): void {
    switch (message.type) {
      case "up":
        return;
      case "ready":
        return this.#ready[thread].resolve();
      case "closed":
        return this.#closed.resolve();
      case "result":
        this.#runs.get(message.id)?.resolve(message.outputs);
        return void this.#runs.delete(message.id);
      case "error": {
        const { id, code } = message;
        const error = code === null ? new Error(message.message) : new OatmillError(code, message.message);
        if (id === null) return this.#fail(error);
        this.#runs.get(id)?.reject(error);
        this.#runs.delete(id);
      }
    }
  }

  #fail(error: Error): void {
    this.#ended ??= error;
    for (const { reject } of [...this.#ready, ...this.#runs.values()]) reject(error);
    this.#runs.clear();
    this.#closed.resolve();
  }

  run(feeds: GraphTensors): Promise<GraphTensors> {
    if (this.#ended) return Promise.reject(this.#ended);
    if (this.waiting > this.#maxWaiting) {
      const message = `${this.#maxWaiting} inputs wait already: try again later`;
      return Promise.reject(new OatmillError("rate_limit_exceeded", message));
    }
    const id = this.#started++, run = Promise.withResolvers<GraphTensors>();
    this.#runs.set(id, run);
    this.#post({ type: "run", id, feeds });
    return run.promise;
  }

  #post(message: ToGraphThread): void {
    this.#workers[0].postMessage(message);
  }

  /** Runs under way end first, unless that takes too long: then they are refused. */
  async close(): Promise<void> {
    const closed = new OatmillError("unavailable", "The model was closed");
    if (!this.#ended) {
      this.#ended = closed;
      this.#post({ type: "close" });
    }
    const timer = setTimeout(() => this.#fail(closed), this.#closeMs);
    try {
      await this.#closed.promise;
    } finally {
      clearTimeout(timer);
      this.terminate();
    }
  }

  terminate(): void {
    for (const worker of this.#workers) worker.terminate();
  }
}
