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
import { type CachedBlock, PrefixCache, ROOT } from "./prefix_cache.ts";

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
  /** Keep full KV blocks after their sequence and let later ones with the same beginning use them. */
  readonly prefixCache: boolean;
}

/** Which positions need logits. */
export type Outputs = "last" | "all";

/**
 * One request on its way. Whoever owns it takes the logits of each output row, sets `needed` behind it, and pushes each
 * chosen token to `tokens`; that token's row comes with the next step.
 */
export class Sequence {
  readonly tokens: number[];
  readonly promptLength: number;
  /** The first position whose logits nobody has seen yet: it and all after it must be computed, cached or not. */
  needed: number;
  /** Positions whose keys and values are in the cache. */
  computed = 0;
  /** Positions that were computed for this sequence or found in the cache, before any preemption. */
  reached = 0;
  /** Positions that were found in the cache and never computed for this sequence. */
  cached = 0;
  readonly blocks: number[] = [];
  /** How many of the blocks the prefix cache knows, and the number of the prefix they hold. */
  known = 0;
  prefix = ROOT;
  /** Row of the block tables; -1 while waiting. */
  slot = -1;

  constructor(readonly id: number, promptIds: readonly number[], outputs: Outputs) {
    this.tokens = [...promptIds];
    this.promptLength = promptIds.length;
    this.needed = outputs === "all" ? 0 : promptIds.length - 1;
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
  readonly prefixes = new PrefixCache();
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
    this.blocks = new KvBlocks(options.kvBlocks, (block) => this.prefixes.delete(block));
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
    this.#publish(s);
    this.#release(s);
    for (const list of [this.#running, this.#waiting]) {
      const i = list.indexOf(s);
      if (i >= 0) list.splice(i, 1);
    }
  }

  /** The rows of the next step with their KV blocks assigned; null when there is nothing to do. Marks them computed. */
  next(): Step | null {
    for (const s of this.#running) this.#publish(s);
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
      // pending 0: its row is already in this step.
      if (s.pending === 0 || budget === 0 || s.slot < 0) continue;
      this.#reuse(s);
      const count = Math.min(s.pending, budget, this.#o.maxRows - rows.length);
      if (count <= 0) continue;
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
      rows.push({ sequence: s, position, output: position >= s.needed });
    }
    s.computed += count;
    s.reached = Math.max(s.reached, s.computed);
  }

  /** Admits waiting sequences whose tokens and one more fit into the available blocks. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#slots.length > 0 && this.blocks.available > 0) {
      const s = this.#waiting[0];
      const need = Math.ceil(Math.min(s.tokens.length + 1, this.#o.contextLength) / KV_BLOCK_TOKENS);
      const found = this.#find(s);
      // A found block that somebody uses already costs nothing.
      const shared = found.reduce((n, { block }) => n + (this.blocks.usersOf(block) > 0 ? 1 : 0), 0);
      const promised = this.#running.reduce(
        (n, r) => n + Math.max(0, Math.ceil(r.tokens.length / KV_BLOCK_TOKENS) - r.blocks.length),
        0,
      );
      if (this.blocks.available - promised < need - shared) return;
      this.#waiting.shift();
      s.slot = this.#slots.pop()!;
      this.#running.push(s);
      if (s.reached === 0 && this.#reusable(s) > 0) this.prefixes.queries++;
      this.#reuse(s);
    }
  }

  /** Blocks that need not be computed if they are cached: all whole ones before the first logits that are needed. */
  #reusable(s: Sequence): number {
    return this.#o.prefixCache ? Math.floor(s.needed / KV_BLOCK_TOKENS) : 0;
  }

  /** The cached blocks that go on where the sequence's known ones end. */
  #find(s: Sequence): CachedBlock[] {
    const found: CachedBlock[] = [];
    let prefix = s.prefix;
    for (let i = s.known; i < this.#reusable(s); i++) {
      const entry = this.prefixes.find(prefix, s.tokens, i * KV_BLOCK_TOKENS);
      if (!entry) break;
      found.push(entry);
      prefix = entry.prefix;
    }
    return found;
  }

  /**
   * Takes what the cache has of a sequence's next blocks. Asked again before every chunk of a prompt: of several
   * sequences that begin alike and come together, the later ones follow what the first has computed.
   */
  #reuse(s: Sequence): void {
    for (const entry of this.#find(s)) this.#adopt(s, entry);
    const computed = Math.max(s.computed, s.known * KV_BLOCK_TOKENS);
    s.computed = computed;
    if (computed <= s.reached) return;
    if (s.cached === 0) this.prefixes.hits++;
    s.cached += computed - s.reached;
    this.prefixes.tokens += computed - s.reached;
    s.reached = computed;
  }

  /** Makes a cached block the sequence's next known one, in place of its own if it has one there. */
  #adopt(s: Sequence, { block, prefix }: CachedBlock): void {
    this.blocks.share(block);
    if (s.known < s.blocks.length) this.blocks.release(s.blocks[s.known], false);
    s.blocks[s.known++] = block;
    s.prefix = prefix;
  }

  /**
   * Makes the full blocks known that earlier steps have computed. Where the same prefix is known from another sequence,
   * that one's block takes the place of the own: the contents are the same, the own block becomes free, and whoever uses
   * a block also uses the blocks of its whole prefix, so that eviction takes the ends of prefixes first.
   */
  #publish(s: Sequence): void {
    if (!this.#o.prefixCache || s.slot < 0) return;
    for (const full = Math.floor(s.computed / KV_BLOCK_TOKENS); s.known < full;) {
      const from = s.known * KV_BLOCK_TOKENS;
      const entry = this.prefixes.find(s.prefix, s.tokens, from);
      if (entry) {
        this.#adopt(s, entry);
      } else {
        s.prefix = this.prefixes.add(s.prefix, s.tokens, from, s.blocks[s.known++]).prefix;
      }
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
    // The end of a prefix before its beginning: in this order unused blocks are evicted.
    for (const b of s.blocks.reverse()) this.blocks.release(b, this.prefixes.has(b));
    s.blocks.length = 0;
    s.known = 0;
    s.prefix = ROOT;
    if (s.slot >= 0) this.#slots.push(s.slot);
    s.slot = -1;
  }
}
