/**
 * Runs the plan on one thread: every thread executes the same list on its share of rows (linear layers), token rows or
 * attention items, and meets the others at `sync`. Worker threads only.
 */
import type { Kernels } from "../kernels/load.ts";
import type { Plan, PlanOp } from "../models/plan.ts";
import type { ModelSpec } from "../models/spec.ts";
import type { MemoryMap } from "./memory_map.ts";
import type { SegmentMap } from "./segment_map.ts";
import { bindAttention, bindKvWrite, bindRope, StepAttention } from "./operations/attention.ts";
import { bindAdaptIn, bindAdaptOut, StepAdapters } from "./operations/adapters.ts";
import { type BindContext, type OpOf, type Run, tilesOf } from "./operations/bound.ts";
import { bindLinear } from "./operations/linear.ts";
import {
  bindCopy,
  bindEmbed,
  bindNorm,
  bindNormHeads,
  bindPrepare,
  bindSoftCap,
} from "./operations/prepare.ts";
import { type Call, callsOfRow, ONE_ROW, recordingKernels } from "./operations/recorded.ts";
import { bindAddChosen, bindExperts, bindRoute, Routing } from "./operations/routing.ts";
import { Waiter } from "./threads.ts";

export interface ExecutorOptions {
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  /** By segment. */
  readonly memories: readonly WebAssembly.Memory[];
  /** By segment: instances on its memory. */
  readonly kernels: readonly Kernels[];
  readonly thread: number;
  readonly threads: number;
}

/** A segment's places and views of its memory. */
interface Segment {
  readonly map: SegmentMap;
  readonly context: BindContext;
  /** The same with kernels that note their calls in `calls`. */
  readonly recording: BindContext;
  readonly calls: Call[];
  readonly floats: Float32Array;
}

/** Operations whose kernel calls differ from step to step, even of one row. */
const FOUND_ANEW: ReadonlySet<PlanOp["op"]> = new Set([
  "attention",
  "route",
  "add_chosen",
  "adapt_in",
  "adapt_out",
]);

/** A list of operations: for any step, and as the calls of a step of one row. */
interface Program {
  readonly runs: readonly Run[];
  readonly row: readonly Call[];
}

/**
 * The plan bound to addresses on one thread. Each operation runs on its segment's memory; where the body goes from one
 * segment to the next, the rows of `hidden` are copied.
 *
 * A step of several tiles shares the work before a linear layer (norm, activation, quantisation) by rows. In a step of one
 * tile (decode) there is nothing to share: the other threads would only wait. There every thread prepares all rows for
 * itself, in memory of its own, which takes no longer and saves 8 of the 18 barriers of a block.
 *
 * A step of one row walks a flat list of kernel calls (operations/recorded.ts).
 */
export class Executor {
  readonly #o: ExecutorOptions;
  readonly #segments: readonly Segment[];
  readonly #body: Program;
  readonly #head: Program;
  readonly #waiter: Waiter;
  readonly #outRows: Int32Array;
  readonly #attention: StepAttention;
  readonly #adapters: StepAdapters;

  constructor(options: ExecutorOptions) {
    this.#o = options;
    const { plan, map, memories, kernels } = options;
    const [first] = map.segments;
    this.#waiter = new Waiter(new Int32Array(memories[0].buffer, first.control, 16));
    this.#outRows = new Int32Array(memories[0].buffer, first.step.outRows);
    this.#attention = new StepAttention(new Int32Array(memories[0].buffer), first, options);
    this.#adapters = new StepAdapters(new Int32Array(memories[0].buffer), first.step.adapters, options);
    const shared = {
      attention: this.#attention,
      adapters: this.#adapters,
      barrier: () => this.#waiter.barrier(options.threads),
    };
    this.#segments = map.segments.map((segment, i) => {
      const floats = new Float32Array(memories[i].buffer), calls: Call[] = [];
      const context = {
        ...options,
        ...shared,
        map: segment,
        kernels: kernels[i],
        routing: new Routing(floats),
        words: new Uint32Array(memories[i].buffer),
      };
      return {
        map: segment,
        context,
        recording: { ...context, kernels: recordingKernels(kernels[i], calls) },
        calls,
        floats,
      };
    });
    this.#body = this.#program(plan.body, map.body);
    this.#head = this.#program(plan.head, plan.head.map(() => map.head));
  }

  /** @param segmentOf segment of each operation */
  #program(ops: readonly PlanOp[], segmentOf: readonly number[]): Program {
    const runs: Run[] = [], row: Call[] = [];
    const always = (run: Run) => {
      runs.push(run);
      row.push(() => run(1, ONE_ROW, ONE_ROW));
    };
    ops.forEach((op, i) => {
      const from = segmentOf[Math.max(0, i - 1)], to = segmentOf[i];
      if (from !== to) always(this.#hop(from, to));
      const { context, recording, calls } = this.#segments[to];
      if (op.op === "experts") return always(this.#experts(op, context, to));
      const run = this.#bind(op, context);
      // What is shared by threads or chosen is found anew in every step, and waiting is no kernel's.
      if (FOUND_ANEW.has(op.op) || ("chosen" in op && op.chosen) || (op.op === "sync" && !op.prepared)) {
        return always(run);
      }
      runs.push(run);
      if (op.op !== "sync") {
        row.push(...callsOfRow(this.#bind(op, recording), calls, this.#o.thread === 0));
      }
    });
    return { runs, row };
  }

  /**
   * All blocks over the `rows` rows of the step; ends synchronised.
   * @param adapterRuns of the step's rows that have LoRA adapters
   */
  runBody(rows: number, adapterRuns = 0): void {
    // One list for all steps, in which those without adapters pass over what adapters add. Two lists gained 2 % of the
    // bundled model's decoding and lost a fifth elsewhere (SmolLM2 S + L 0.5 against dense int8 in the same run, 2 threads:
    // prefill 1.01 instead of 1.21, 16 streams 0.90 instead of 1.08; medians of six runs and nine), for a reason not known.
    this.#attention.begin(rows);
    this.#adapters.begin(adapterRuns);
    this.#run(this.#body, rows);
  }

  /**
   * Logits of the step's output rows `from .. from + count - 1` (count <= HEAD_ROWS) in buffer `logits`. Returns on all
   * threads when they are there; the leader may read them until it calls runHead again.
   */
  runHead(from: number, count: number): void {
    if (this.#o.thread === 0) this.#gather(from, count);
    this.#waiter.barrier(this.#o.threads);
    this.#run(this.#head, count);
  }

  #run({ runs, row }: Program, rows: number): void {
    if (rows === 1) {
      for (const call of row) call();
      return;
    }
    const { thread, threads } = this.#o;
    const tiles = tilesOf(rows);
    const mine = tiles.filter((_, i) => i % threads === thread);
    for (const run of runs) run(rows, tiles, mine);
  }

  /** Hidden rows that need logits, side by side in the head's segment. */
  #gather(from: number, count: number): void {
    const { map } = this.#o;
    const last = this.#segments[map.body.at(-1)!], head = this.#segments[map.head];
    const hidden = last.map.buffers.hidden, out = head.map.buffers.headIn;
    for (let i = 0; i < count; i++) {
      const source = hidden.address / 4 + this.#outRows[from + i] * hidden.stride;
      head.floats.set(
        last.floats.subarray(source, source + this.#o.spec.hiddenSize),
        out.address / 4 + i * out.stride,
      );
    }
  }

  /**
   * Copies the step's rows of `hidden` to the next segment, each thread a share of them. Blocks end with a `sync`: the rows
   * are complete. (Llama-2-7B: 16 KiB a row, a few microseconds of a decode step of hundreds of milliseconds.)
   */
  #hop(from: number, to: number): Run {
    const { thread, threads } = this.#o;
    const source = this.#segments[from], target = this.#segments[to];
    const { address, stride } = source.map.buffers.hidden;
    const begin = address / 4, targetBegin = target.map.buffers.hidden.address / 4;
    return (rows) => {
      const first = Math.floor(rows * thread / threads) * stride;
      const end = Math.floor(rows * (thread + 1) / threads) * stride;
      target.floats.set(source.floats.subarray(begin + first, begin + end), targetBegin + first);
      this.#waiter.barrier(threads);
    };
  }

  /** Expert by expert, a list of operations each. */
  #experts(op: OpOf<"experts">, context: BindContext, segment: number): Run {
    const programs = op.each.map((ops) => this.#program(ops, ops.map(() => segment)));
    return bindExperts(op, context, (expert, rows) => this.#run(programs[expert], rows));
  }

  #bind(op: Exclude<PlanOp, OpOf<"experts">>, context: BindContext): Run {
    switch (op.op) {
      case "sync":
        return (_rows, tiles) => {
          if (op.prepared && tiles.length === 1) return;
          if (op.adapted && this.#adapters.tiles.length === 0) return;
          this.#waiter.barrier(this.#o.threads);
        };
      case "embed":
        return bindEmbed(op, context);
      case "prepare":
        return bindPrepare(op, context);
      case "norm":
        return bindNorm(op, context);
      case "copy":
        return bindCopy(op, context);
      case "norm_heads":
        return bindNormHeads(op, context);
      case "soft_cap":
        return bindSoftCap(op, context);
      case "linear":
        return bindLinear(op, context);
      case "rope":
        return bindRope(op, context);
      case "kv_write":
        return bindKvWrite(op, context);
      case "attention":
        return bindAttention(op, context);
      case "route":
        return bindRoute(op, context);
      case "add_chosen":
        return bindAddChosen(op, context);
      case "adapt_in":
        return bindAdaptIn(op, context);
      case "adapt_out":
        return bindAdaptOut(op, context);
    }
  }
}
