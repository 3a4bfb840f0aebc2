/**
 * Continuous batching: decides which token rows the next step computes. Pure data structures, no memory and no model, so
 * that tests drive it alone.
 *
 * A step takes one row of every decoding sequence first, with drafts behind it when few decode, then chunks of prompts:
 * those with the least left first, so that a short prompt does not wait for a long one, but every row that others get
 * counts for whoever waits. While something decodes, prompt chunks get little time, so that the time between tokens
 * stays bounded.
 *
 * Rows stand in order of their sequences' LoRA adapters, those without one first: the rows of one adapter are a run.
 */
import { OatmillError } from "../errors.ts";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { KvBlocks } from "./kv_blocks.ts";
import { type CachedBlock, PrefixCache } from "./prefix_cache.ts";
import type { Sequence } from "./sequence.ts";
import type { PromptBudget, StepShape } from "./step_cost.ts";

/**
 * Rows that decoding sequences and their drafts fill together: one tile of the batched kernels. Beyond it drafts would
 * compete with sequences for arithmetic that is already shared.
 */
const DRAFT_ROWS = 8;
/**
 * A row given to others counts like this many rows less for a waiting prompt: one of n tokens is overtaken by at most
 * n / AGING rows of shorter ones.
 */
const AGING = 0.5;
/** Fewest rows of a prompt chunk, whatever they cost: below, a step's fixed cost dominates. */
const LEAST_ROWS = { mixed: 16, alone: 128 } as const;
/** Steps are cut to whole tiles of this many rows. */
const TILE_ROWS = 16;

export interface SchedulerOptions {
  /** Most sequences that hold KV blocks at once. */
  readonly maxSequences: number;
  /** Most rows of a step. */
  readonly maxRows: number;
  readonly kvBlocks: number;
  readonly contextLength: number;
  readonly maxWaiting: number;
  /** Keep full KV blocks after their sequence and let later ones with the same beginning use them. */
  readonly prefixCache: boolean;
  /** Sequences of more tokens than this turn otherwise (longrope), so that what was computed of them is void. */
  readonly longBeyond?: number;
}

export interface StepRow {
  readonly sequence: Sequence;
  readonly position: number;
  /** What the row computes: the sequence's token at the position, or a draft of it. */
  readonly token: number;
  /** The row's hidden state goes through the head. */
  readonly output: boolean;
}
export interface Step {
  readonly rows: readonly StepRow[];
  readonly shape: StepShape;
}

export class Scheduler {
  readonly #o: SchedulerOptions;
  readonly blocks: KvBlocks;
  readonly prefixes = new PrefixCache();
  /** In order of admission. */
  readonly #running: Sequence[] = [];
  readonly #waiting: Sequence[] = [];
  readonly #slots: number[];
  /** Prompt rows given so far. */
  #served = 0;
  /** Tokens that were computed on trial, and those of them that were right. */
  drafted = 0;
  accepted = 0;

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
    s.long = s.tokens.length > this.#longBeyond;
    s.prefix = s.root;
    this.#waiting.push(s);
  }

  get #longBeyond(): number {
    return this.#o.longBeyond ?? Infinity;
  }

  /** Ends a sequence, running or waiting, and frees what it holds. Unknown sequences are ignored. */
  remove(s: Sequence): void {
    this.#settle(s);
    this.#publish(s);
    this.#release(s);
    for (const list of [this.#running, this.#waiting]) {
      const i = list.indexOf(s);
      if (i >= 0) list.splice(i, 1);
    }
  }

  /** The rows of the next step with their KV blocks assigned; null when there is nothing to do. Marks them computed. */
  next(budget: PromptBudget): Step | null {
    for (const s of this.#running) {
      this.#settle(s);
      this.#publish(s);
    }
    this.#outgrow();
    this.#admit();
    const decodes = this.#decodes();
    const prompts = this.#prompts(budget, decodes.length);
    // A sequence that was preempted after its rows were taken does not run.
    const runs = (r: StepRow) => r.sequence.slot >= 0;
    const kept = { decodes: decodes.filter(runs), prompts: prompts.filter(runs) };
    const rows = byAdapter([...kept.decodes, ...kept.prompts]);
    if (rows.length === 0) return null;
    const shape = {
      decodeRows: kept.decodes.length,
      promptRows: kept.prompts.length,
      promptContext: kept.prompts.reduce((n, r) => n + r.position + 1, 0),
    };
    return { rows, shape };
  }

  /** Looks at what became of a sequence's drafts: those whose logits were taken were right, the others are not computed. */
  #settle(s: Sequence): void {
    if (s.drafted === 0) return;
    const before = s.computed - s.drafted;
    s.computed = Math.min(s.computed, s.needed);
    const accepted = s.computed - before;
    s.lookup!.settle(s.drafted, accepted);
    this.drafted += s.drafted;
    this.accepted += accepted;
    s.drafted = 0;
  }

  /** Sequences that have become long begin anew: their keys were turned as those of short ones. */
  #outgrow(): void {
    for (const s of this.#running.filter((s) => !s.long && s.tokens.length > this.#longBeyond).reverse()) {
      s.long = true;
      this.#preempt(s);
    }
  }

  /** One row of every sequence that waits for its next token, and its drafts. */
  #decodes(): StepRow[] {
    // An earlier sequence may preempt a later one. All have their blocks before any of them drafts.
    const ready = this.#running.filter((s) => s.pending === 1)
      .filter((s) => s.slot >= 0 && this.#reserve(s, s.computed + 1));
    const decoding = ready.slice(0, this.#o.maxRows);
    const most = Math.floor(Math.min(DRAFT_ROWS, this.#o.maxRows) / decoding.length) - 1;
    return decoding.flatMap((s) => [...this.#take(s, 1), ...this.#draft(s, most, decoding.length)]);
  }

  /**
   * Rows on trial. They take no block from anybody who runs. A sequence's first step has none: whoever waits to hear that a
   * request runs counts on one token of it (routes/generation.ts).
   */
  #draft(s: Sequence, most: number, decoding: number): StepRow[] {
    if (s.tokens.length === s.promptLength) return [];
    const room = (s.blocks.length + this.blocks.available) * KV_BLOCK_TOKENS - s.computed;
    const left = s.long ? Infinity : this.#longBeyond - s.computed; // rows behind would have to turn otherwise
    const draft = s.lookup?.propose(s.tokens, Math.min(most, room, left), decoding) ?? [];
    this.#reserve(s, s.computed + draft.length);
    const rows = draft.map((token, i) => ({ sequence: s, position: s.computed + i, token, output: true }));
    s.computed += draft.length;
    s.drafted = draft.length;
    return rows;
  }

  /** Chunks of prompts beside `decodes` rows. */
  #prompts(budget: PromptBudget, decodes: number): StepRow[] {
    const rows: StepRow[] = [];
    const mixed = decodes > 0;
    const least = mixed ? LEAST_ROWS.mixed : LEAST_ROWS.alone;
    let ms = mixed ? budget.mixedMs : budget.aloneMs;
    for (const s of this.#byTurn()) {
      if (s.slot < 0) continue;
      const most = Math.min(s.pending, this.#o.maxRows - decodes - rows.length);
      let count = 0, cost = 0;
      for (; count < most; count++) {
        const more = budget.rowMs(s.computed + count);
        if (cost + more > ms && rows.length + count >= least) break;
        cost += more;
      }
      if (count < s.pending) count = wholeTiles(decodes + rows.length, count);
      if (count === 0 || !this.#reserve(s, s.computed + count)) continue;
      rows.push(...this.#take(s, count));
      ms -= cost;
    }
    this.#served += rows.length;
    return rows;
  }

  /** Sequences with a prompt to compute: the least left first, less what others got since they came. */
  #byTurn(): Sequence[] {
    const waiting = this.#running.filter((s) => s.pending > 0);
    for (const s of waiting) this.#reuse(s);
    const turn = (s: Sequence) => s.pending - AGING * (this.#served - s.since);
    return waiting.sort((a, b) => turn(a) - turn(b));
  }

  #take(s: Sequence, count: number): StepRow[] {
    const rows = s.tokens.slice(s.computed, s.computed + count).map((token, i) => {
      const position = s.computed + i;
      return { sequence: s, position, token, output: position >= s.needed };
    });
    s.computed += count;
    s.reached = Math.max(s.reached, s.computed);
    return rows;
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
      if (s.since < 0) s.since = this.#served;
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
    s.prefix = s.root;
    s.drafted = 0;
    if (s.slot >= 0) this.#slots.push(s.slot);
    s.slot = -1;
  }
}

/** In order of adapters' slots; otherwise as they were, so that a sequence's rows stay together. */
function byAdapter(rows: StepRow[]): StepRow[] {
  const slot = ({ sequence: { adapter } }: StepRow) => adapter ? adapter.slot : -1;
  return rows.some((row) => slot(row) >= 0) ? rows.sort((a, b) => slot(a) - slot(b)) : rows;
}

/** At most `count` rows more, so that `before` and they fill whole tiles, if they fill one. */
function wholeTiles(before: number, count: number): number {
  const over = (before + count) % TILE_ROWS;
  return over < count ? count - over : count;
}
