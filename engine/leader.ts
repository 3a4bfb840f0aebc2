/**
 * The leading compute thread: owns the scheduler, starts steps on all threads, samples, and reports events. Lives in a
 * worker; between steps it lets messages in, so that a cancellation takes effect within one step.
 */
import { OatmillError } from "../errors.ts";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import type { Kernels } from "../kernels/load.ts";
import type { ImageRows } from "../models/image_input.ts";
import { RUN_WORDS } from "./adapter_places.ts";
import type { Executor } from "./executor.ts";
import { HEAD_ROWS } from "./segment_map.ts";
import type { LogitsRow } from "./sampler.ts";
import { ropeRows } from "./rope_tables.ts";
import { Scheduler, type Step, type StepRow } from "./scheduler.ts";
import { StepCost, WHOLE_PROMPTS } from "./step_cost.ts";
import { SharedStats } from "./shared_stats.ts";
import { advance, COMMAND, CONTROL } from "./threads.ts";
import { Work } from "./work.ts";
import type { FromWorker, InitMessage, ToLeader, WorkEvent } from "./worker_messages.ts";

/** How often waiting requests are looked at, in ms: what they wait longer than allowed. */
const LOOK_MS = 250;
/** Between two looks at messages when nothing can be computed until a grammar has answered. */
const MASK_WAIT_MS = 1;

export class Leader {
  readonly #init: InitMessage;
  readonly #executor: Executor;
  readonly #kernels: Kernels;
  readonly #scheduler: Scheduler;
  readonly #cost = new StepCost();
  readonly #work = new Map<number, Work>();
  /** Those that wait for their grammars. */
  readonly #unmasked = new Set<Work>();
  readonly #control: Int32Array;
  /** By segment. */
  readonly #ints: readonly Int32Array[];
  readonly #headFloats: Float32Array;
  readonly #stats: SharedStats;
  readonly #report: (message: FromWorker) => void;
  #events: WorkEvent[] = [];
  /** Slots of adapters that were removed while something used them. */
  readonly #leaving = new Set<number>();
  /** Row of the rope tables where long sequences begin. */
  readonly #longTurns: number;
  #looping = false;
  #lookedMs = 0;
  #steps = 0;
  #batchTokens = 0;

  constructor(
    init: InitMessage,
    executor: Executor,
    kernels: Kernels,
    report: (message: FromWorker) => void,
  ) {
    this.#init = init;
    this.#executor = executor;
    this.#kernels = kernels;
    this.#scheduler = new Scheduler(init.scheduler);
    this.#longTurns = ropeRows(init.spec, init.scheduler.contextLength).long;
    const { memories, map } = init;
    this.#control = new Int32Array(memories[0].buffer, map.segments[0].control, 16);
    this.#ints = memories.map((memory) => new Int32Array(memory.buffer));
    this.#headFloats = new Float32Array(memories[map.head].buffer);
    this.#stats = new SharedStats(init.stats);
    this.#report = report;
    this.#flush();
  }

  /** Handles one message of the main thread. */
  receive(m: ToLeader): void {
    if (m.type === "add") this.#add(m);
    if (m.type === "cancel") this.#cancel(m.id);
    if (m.type === "drop") {
      this.#leaving.add(m.slot);
      this.#flush();
    }
    if (m.type === "close") {
      Atomics.store(this.#control, CONTROL.command, COMMAND.exit);
      advance(this.#control, CONTROL.epoch);
    }
  }

  #add(m: ToLeader & { type: "add" }): void {
    const { plan, scheduler, speculation } = this.#init;
    const work = new Work(m.id, m.kind, m.request, plan.output.cols, scheduler.contextLength, speculation);
    try {
      this.#scheduler.add(work.sequence);
    } catch (e) {
      if (!(e instanceof OatmillError)) throw e;
      this.#events.push({ id: m.id, error: { code: e.code, message: e.message } });
      this.#flush();
      return;
    }
    this.#work.set(m.id, work);
    if (!this.#looping) this.#loop();
  }

  #cancel(id: number): void {
    const work = this.#work.get(id);
    if (!work) return;
    this.#end(work);
    this.#flush();
  }

  async #loop(): Promise<void> {
    const { causal } = this.#init.spec.attention;
    this.#looping = true;
    while (!this.#scheduler.idle) {
      this.#resume(0);
      const step = this.#scheduler.next(causal ? this.#cost : WHOLE_PROMPTS);
      if (step) {
        const start = performance.now();
        this.#step(step);
        this.#cost.observe(step.shape, performance.now() - start);
      } else if (this.#unmasked.size > 0) this.#resume(MASK_WAIT_MS);
      else if (!this.#scheduler.idle) throw new Error("The scheduler has work but no step");
      this.#dropLate(performance.now());
      this.#flush();
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#batchTokens = 0;
    this.#flush();
    this.#looping = false;
  }

  /** Looks now and then for requests that have waited too long. */
  #dropLate(now: number): void {
    const { maxWaitMs } = this.#init;
    if (now - this.#lookedMs < Math.min(LOOK_MS, maxWaitMs)) return;
    this.#lookedMs = now;
    for (const [id, work] of this.#work) {
      if (work.waitedMs(now) <= maxWaitMs) continue;
      const message = `The request waited ${maxWaitMs / 1000} s in the queue. Retry later`;
      this.#events.push({ id, error: { code: "queue_timeout", message } });
      this.#end(work);
    }
  }

  #step(step: Step): void {
    const outputs = this.#write(step);
    const control = this.#control;
    Atomics.store(control, CONTROL.rows, step.rows.length);
    Atomics.store(control, CONTROL.outputs, outputs.length);
    const adapterRuns = this.#writeRuns(step.rows);
    Atomics.store(control, CONTROL.adapterRuns, adapterRuns);
    Atomics.store(control, CONTROL.command, COMMAND.step);
    advance(control, CONTROL.epoch);
    this.#executor.runBody(step.rows.length, adapterRuns);
    for (let from = 0; from < outputs.length; from += HEAD_ROWS) {
      const count = Math.min(HEAD_ROWS, outputs.length - from);
      this.#executor.runHead(from, count);
      for (let i = 0; i < count; i++) {
        this.#output(step.rows[outputs[from + i]], i);
      }
    }
    this.#steps++;
    this.#batchTokens = step.rows.length;
  }

  #output({ sequence: s, position, token }: StepRow, headRow: number): void {
    const work = this.#work.get(s.id);
    // The request has ended, or an earlier row of this step chose another token than this row's draft.
    if (!work || s.tokens[position] !== token) return;
    if (work.output(position, this.#row(headRow), this.#events)) this.#end(work);
    else if (work.late) this.#unmasked.add(work);
  }
  #end(work: Work): void {
    this.#scheduler.remove(work.sequence);
    this.#work.delete(work.id);
    this.#unmasked.delete(work);
  }

  /** Sequences whose mask was late go on if it has come; the first may be waited for. */
  #resume(waitMs: number): void {
    let left = waitMs;
    for (const work of [...this.#unmasked]) {
      // No row of logits is in use between steps.
      if (work.resume(this.#row(0), left, this.#events)) this.#end(work);
      else if (!work.late) this.#unmasked.delete(work);
      left = 0;
    }
  }

  #row(index: number): LogitsRow {
    const { map, plan } = this.#init;
    const { buffers, candidates } = map.segments[map.head];
    const { address, stride } = buffers[plan.output.buffer];
    return {
      kernels: this.#kernels.base,
      floats: this.#headFloats,
      ints: this.#ints[map.head],
      address: address + index * stride * 4,
      vocab: plan.output.cols,
      candidates,
    };
  }

  /** Writes the step's parameters for all threads, in every memory; returns the rows that need logits. */
  #write(step: Step): number[] {
    const map = this.#init.map.segments[0], { causal } = this.#init.spec.attention;
    const at = map.step;
    const [ints, ...others] = this.#ints;
    const outputs: number[] = [];
    step.rows.forEach(({ sequence: s, position, token, output }, row) => {
      const work = this.#work.get(s.id);
      work?.start();
      if (work?.request.image && position === 0) this.#writeImage(work.request.image, row);
      const table = map.blockTables + s.slot * map.blocksPerSequence * 4;
      ints[at.ids / 4 + row] = token;
      ints[at.positions / 4 + row] = position;
      ints[at.types / 4 + row] = work?.request.types?.[position] ?? 0;
      ints[at.turns / 4 + row] = position + (s.long ? this.#longTurns : 0);
      ints[at.slots / 4 + row] = s.blocks[Math.floor(position / KV_BLOCK_TOKENS)] * KV_BLOCK_TOKENS +
        position % KV_BLOCK_TOKENS;
      ints[at.contexts / 4 + row] = causal ? position + 1 : s.tokens.length;
      ints[at.tables / 4 + row] = table;
      if (row === 0 || step.rows[row - 1].sequence !== s) ints.set(s.blocks, table / 4);
      if (output) {
        ints[at.outRows / 4 + outputs.length] = row;
        outputs.push(row);
      }
    });
    const { begin, end } = map.stepPlace;
    for (const other of others) other.set(ints.subarray(begin / 4, end / 4), begin / 4);
    return outputs;
  }

  /** Writes which rows have which LoRA adapter; returns how many runs they are. The first memory's are read. */
  #writeRuns(rows: readonly StepRow[]): number {
    const [ints] = this.#ints, at = this.#init.map.segments[0].step.adapters / 4;
    let runs = 0, slot = -1;
    rows.forEach(({ sequence: { adapter } }, row) => {
      if (adapter === null) return; // those without one come first
      if (adapter.slot !== slot) {
        slot = adapter.slot;
        ints.set([slot, row], at + runs++ * RUN_WORDS);
      }
      ints[at + (runs - 1) * RUN_WORDS + 2] = row + 1;
    });
    return runs;
  }

  /** Fills the buffers that an image's plan begins with, from row `first` on. */
  #writeImage({ rows, patches, added }: ImageRows, first: number): void {
    const { map, memories } = this.#init, [segment] = map.body;
    const floats = new Float32Array(memories[segment].buffer);
    for (const [name, values] of [["patches", patches], ["hidden", added]] as const) {
      const { address, stride } = map.segments[segment].buffers[name], width = values.length / rows;
      for (let i = 0; i < rows; i++) {
        floats.set(values.subarray(i * width, (i + 1) * width), address / 4 + (first + i) * stride);
      }
    }
  }

  #flush(): void {
    const { running, waiting, blocks, prefixes, drafted, accepted } = this.#scheduler;
    this.#stats.write({
      running,
      waiting,
      kvBlocksUsed: blocks.used,
      kvBlocksTotal: blocks.total,
      kvBlocksCached: blocks.kept,
      prefixQueries: prefixes.queries,
      prefixHits: prefixes.hits,
      prefixTokens: prefixes.tokens,
      draftedTokens: drafted,
      acceptedTokens: accepted,
      stepsTotal: this.#steps,
      batchTokens: this.#batchTokens,
    });
    if (this.#events.length > 0) {
      const events = this.#events;
      this.#events = [];
      this.#report({ type: "events", events });
    }
    for (const slot of this.#leaving) this.#drop(slot);
  }

  /** Says that nothing uses the adapter in the slot, if that is so. */
  #drop(slot: number): void {
    for (const { sequence: { adapter } } of this.#work.values()) if (adapter?.slot === slot) return;
    this.#leaving.delete(slot);
    this.#report({ type: "dropped", slot });
  }
}
