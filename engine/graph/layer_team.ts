/**
 * The layers of a graph on several threads: the leader writes rows and starts a step, every thread computes its share, and
 * all meet at each `sync`. Worker threads only.
 */
import { bindKernels } from "../../kernels/load.ts";
import { type LinearContext, type Run, tilesOf } from "../operations/bound.ts";
import { bindLinear } from "../operations/linear.ts";
import { bindPrepare } from "../operations/prepare.ts";
import { advance, COMMAND, CONTROL, Waiter } from "../threads.ts";
import { GRAPH_ROWS, type GraphMap } from "./graph_map.ts";
import type { GraphPlan, LayerOp } from "./graph_plan.ts";

export interface LayersInit {
  readonly memory: WebAssembly.Memory;
  readonly modules: ReadonlyMap<string, WebAssembly.Module>;
  readonly map: GraphMap;
  readonly plan: GraphPlan;
  readonly blockChunks: number;
  readonly thread: number;
  readonly threads: number;
}

/** One thread's share of every step. */
class LayerThread {
  readonly #steps: readonly (readonly Run[])[];
  readonly control: Int32Array;
  readonly waiter: Waiter;

  constructor(readonly init: LayersInit) {
    const { memory, modules, map, plan } = init;
    this.control = new Int32Array(memory.buffer, map.control, 16);
    this.waiter = new Waiter(this.control);
    const context: LinearContext = { ...init, kernels: bindKernels(modules, memory) };
    this.#steps = plan.steps.map(({ ops }) => ops.map((op) => this.#bind(op, context)));
  }

  #bind(op: LayerOp, context: LinearContext): Run {
    if (op.op === "prepare") return bindPrepare(op, context);
    if (op.op === "linear") return bindLinear(op, context);
    return () => this.waiter.barrier(context.threads);
  }

  /** Ends synchronised. */
  run(step: number, rows: number): void {
    const { thread, threads } = this.init;
    const tiles = tilesOf(rows), mine = tiles.filter((_, i) => i % threads === thread);
    for (const run of this.#steps[step]) run(rows, tiles, mine);
  }
}

/** Runs every step that the leader starts, until it says exit. Blocks the thread. */
export function followLayers(init: LayersInit): void {
  const own = new LayerThread(init), { control, waiter } = own;
  for (let epoch = 0;; epoch++) {
    waiter.waitWhile(CONTROL.epoch, epoch);
    if (Atomics.load(control, CONTROL.command) === COMMAND.exit) return;
    // Before the step: after its last barrier the leader may already be writing the next one.
    own.run(Atomics.load(control, CONTROL.outputs), Atomics.load(control, CONTROL.rows));
  }
}

/** The leading thread. */
export class LayerTeam {
  readonly #own: LayerThread;
  readonly #floats: Float32Array;

  constructor(init: LayersInit) {
    this.#own = new LayerThread(init);
    this.#floats = new Float32Array(init.memory.buffer);
  }

  get steps(): GraphPlan["steps"] {
    return this.#own.init.plan.steps;
  }

  /**
   * All layers of a step.
   * @param x `[rows, dIn]`
   * @returns for each layer `[rows, dOut]`
   */
  multiply(step: number, x: Float32Array, rows: number): Float32Array<ArrayBuffer>[] {
    const { plan, map } = this.#own.init, { cols, outputs } = plan.steps[step];
    const out = outputs.map((o) => new Float32Array(rows * o.cols));
    const input = map.buffers.x, y = map.buffers.y, floats = this.#floats;
    for (let from = 0; from < rows; from += GRAPH_ROWS) {
      const count = Math.min(GRAPH_ROWS, rows - from);
      for (let r = 0; r < count; r++) {
        const row = x.subarray((from + r) * cols, (from + r + 1) * cols);
        floats.set(row, input.address / 4 + r * input.stride);
      }
      this.#start(step, count);
      outputs.forEach(({ column, cols }, i) => {
        for (let r = 0; r < count; r++) {
          const at = y.address / 4 + r * y.stride + column;
          out[i].set(floats.subarray(at, at + cols), (from + r) * cols);
        }
      });
    }
    return out;
  }

  #start(step: number, rows: number): void {
    const { control } = this.#own;
    Atomics.store(control, CONTROL.rows, rows);
    Atomics.store(control, CONTROL.outputs, step);
    Atomics.store(control, CONTROL.command, COMMAND.step);
    advance(control, CONTROL.epoch);
    this.#own.run(step, rows);
  }

  /** Ends the other threads. */
  close(): void {
    const { control } = this.#own;
    Atomics.store(control, CONTROL.command, COMMAND.exit);
    advance(control, CONTROL.epoch);
  }
}
