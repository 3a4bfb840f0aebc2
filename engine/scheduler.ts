/**
 * Continuous batching: decides which token rows the next step computes. Pure data structures, no memory and no model, so
 * that tests drive it alone.
 *
 * A step takes one row of every decoding sequence first, then prompt chunks (first come, first served) up to the row
 * budget. While something decodes, prompt chunks are short, so that the time between tokens stays bounded.
 */
import { OatmillError } from "../errors.ts";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { KvBlocks } from "./kv_blocks.ts";

export interface SchedulerOptions {
  /** Most sequences that hold KV blocks at once. */
  readonly maxSequences: number;
  /** Most rows of a step. */
  readonly maxRows: number;
  /** Most prompt rows of a step in which something decodes. */
  readonly mixedPrefillRows: number;
  readonly kvBlocks: number;
  readonly contextLength: number;
  readonly maxWaiting: number;
}

/** Which positions need logits. */
export type Outputs = "last" | "all";

/** One request on its way. Whoever owns it pushes each chosen token to `tokens`; its row comes with the next step. */
export class Sequence {
  readonly tokens: number[];
  readonly promptLength: number;
  /** Positions whose keys and values are in the cache. */
  computed = 0;
  readonly blocks: number[] = [];
  /** Row of the block tables; -1 while waiting. */
  slot = -1;

  constructor(readonly id: number, promptIds: readonly number[], readonly outputs: Outputs) {
    this.tokens = [...promptIds];
    this.promptLength = promptIds.length;
  }
  get pending(): number {
    return this.tokens.length - this.computed;
  }
}

export interface StepRow {
  readonly sequence: Sequence;
  readonly position: number;
  /** The row's hidden state goes through the head. */
  readonly output: boolean;
}
export interface Step {
  readonly rows: readonly StepRow[];
}

export class Scheduler {
  readonly #o: SchedulerOptions;
  readonly blocks: KvBlocks;
  /** In order of admission. */
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #slots: number[];

  constructor(options: SchedulerOptions) {
    if (options.kvBlocks * KV_BLOCK_TOKENS < options.contextLength) {
      throw new RangeError(
        `${options.kvBlocks} KV blocks cannot hold one context of ${options.contextLength} tokens`,
      );
    }
    this.#o = options;
    this.blocks = new KvBlocks(options.kvBlocks);
    this.#slots = Array.from({ length: options.maxSequences }, (_, i) => options.maxSequences - 1 - i);
  }

  get running(): number {
    return this.#running.length;
  }
  get waiting(): number {
    return this.#waiting.length;
  }
  get idle(): boolean {
    return this.#running.length === 0 && this.#waiting.length === 0;
  }

  /**
   * Queues a sequence.
   * @throws {OatmillError} rate_limit_exceeded when the queue is full, context_length_exceeded when the prompt is too long
   */
  add(s: Sequence): void {
    if (s.tokens.length === 0) throw new RangeError("A sequence needs at least one token");
    if (s.tokens.length > this.#o.contextLength) {
      throw new OatmillError(
        "context_length_exceeded",
        `The prompt has ${s.tokens.length} tokens, the context window ${this.#o.contextLength}`,
      );
    }
    if (this.#waiting.length >= this.#o.maxWaiting) {
      throw new OatmillError(
        "rate_limit_exceeded",
        `The queue is full: ${this.#waiting.length} requests wait. Retry later`,
      );
    }
    this.#waiting.push(s);
  }

  /** Ends a sequence, running or waiting, and frees what it holds. Unknown sequences are ignored. */
  remove(s: Sequence): void {
    this.#release(s);
    for (const list of [this.#running, this.#waiting]) {
      const i = list.indexOf(s);
      if (i >= 0) list.splice(i, 1);
    }
  }

  /** The rows of the next step with their KV blocks assigned; null when there is nothing to do. Marks them computed. */
  next(): Step | null {
    this.#admit();
    const rows: StepRow[] = [];
    const decoding = this.#running.filter((s) => s.pending === 1);
    for (const s of decoding) {
      // An earlier sequence of this step may have preempted this one.
      if (s.slot >= 0 && rows.length < this.#o.maxRows && this.#reserve(s, s.computed + 1)) {
        this.#take(s, 1, rows);
      }
    }
    let budget = rows.length > 0 ? this.#o.mixedPrefillRows : this.#o.maxRows;
    for (const s of [...this.#running]) {
      const count = Math.min(s.pending, budget, this.#o.maxRows - rows.length);
      // pending 0: its row is already in this step.
      if (count <= 0 || s.slot < 0) continue;
      if (!this.#reserve(s, s.computed + count)) continue;
      this.#take(s, count, rows);
      budget -= count;
    }
    // A sequence that was preempted after its row was taken does not run.
    const kept = rows.filter((r) => r.sequence.slot >= 0);
    return kept.length > 0 ? { rows: kept } : null;
  }

  #take(s: Sequence, count: number, rows: StepRow[]): void {
    for (let i = 0; i < count; i++) {
      const position = s.computed + i;
      const output = s.outputs === "all" || position === s.tokens.length - 1;
      rows.push({ sequence: s, position, output });
    }
    s.computed += count;
  }

  /** Admits waiting sequences whose tokens and one more fit into the free blocks. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#slots.length > 0) {
      const s = this.#waiting[0];
      const need = Math.ceil(Math.min(s.tokens.length + 1, this.#o.contextLength) / KV_BLOCK_TOKENS);
      const promised = this.#running.reduce(
        (n, r) => n + Math.max(0, Math.ceil(r.tokens.length / KV_BLOCK_TOKENS) - r.blocks.length),
        0,
      );
      if (this.blocks.free - promised < need) return;
      this.#waiting.shift();
      s.slot = this.#slots.pop()!;
      this.#running.push(s);
    }
  }

  /** Makes room for `length` positions, preempting the youngest other sequences when no block is free. */
  #reserve(s: Sequence, length: number): boolean {
    const need = Math.ceil(length / KV_BLOCK_TOKENS);
    while (s.blocks.length < need) {
      const block = this.blocks.take();
      if (block !== null) {
        s.blocks.push(block);
        continue;
      }
      const youngest = this.#running.at(-1)!;
      if (youngest === s) return false; // the older ones go first
      this.#preempt(youngest);
    }
    return true;
  }

  /** Drops a sequence's cache and puts it at the head of the queue; its tokens are computed again later. */
  #preempt(s: Sequence): void {
    this.#release(s);
    this.#running.splice(this.#running.indexOf(s), 1);
    s.computed = 0;
    this.#waiting.unshift(s);
  }

  #release(s: Sequence): void {
    for (const b of s.blocks) this.blocks.release(b);
    s.blocks.length = 0;
    if (s.slot >= 0) this.#slots.push(s.slot);
    s.slot = -1;
  }
}
