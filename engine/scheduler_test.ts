import assert from "node:assert/strict";
import fc from "fast-check";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { OatmillError } from "../errors.ts";
import { rootOf } from "./prefix_cache.ts";
import { PromptLookup } from "./prompt_lookup.ts";
import { Scheduler, type SchedulerOptions, type Step } from "./scheduler.ts";
import { type Outputs, Sequence } from "./sequence.ts";
import type { PromptBudget } from "./step_cost.ts";

const OPTIONS: SchedulerOptions = {
  maxSequences: 4,
  maxRows: 32,
  kvBlocks: 8,
  contextLength: 96,
  maxWaiting: 100,
  prefixCache: true,
};

/** Beside decodes 20 prompt rows, alone as many as a step holds. */
const BUDGET: PromptBudget = { mixedMs: 20, aloneMs: 1e6, rowMs: () => 1 };

const prompt = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);

/** Stands for the keys and values of a position, which depend on its token and all before it. */
function contentsOf(tokens: readonly number[], length: number): number[] {
  let hash = 1;
  return tokens.slice(0, length).map((t) => hash = Math.imul(hash ^ (t + 1), 0x9e3779b1) ^ (hash >>> 15));
}

interface Request {
  readonly prompt: readonly number[];
  readonly outputs: Outputs;
  readonly produce: number;
  readonly at: number;
  readonly cancelAt: number | null;
  /** Each third token is chosen so many steps after its logits, as by a slow grammar. */
  readonly late: number;
  /** Serial number of its LoRA adapter; 0: none. */
  readonly adapter: number;
}
const request = (o: Partial<Request>): Request => ({
  prompt: prompt(20),
  outputs: "last",
  produce: 10,
  at: 0,
  cancelAt: null,
  late: 0,
  adapter: 0,
  ...o,
});

/** A model without weights: the next of three tokens is a function of all before it, mostly of the last two. */
function nextToken(tokens: readonly number[]): number {
  const from = tokens.length % 17 < 12 ? tokens.length - 2 : 0;
  return Math.abs(contentsOf(tokens.slice(Math.max(0, from)), tokens.length).at(-1)! >> 8) % 3;
}

function generated(r: Request, contextLength: number): number[] {
  const tokens = [...r.prompt];
  const end = Math.min(contextLength, tokens.length + r.produce);
  while (tokens.length < end) tokens.push(nextToken(tokens));
  return tokens;
}

/** Every block is empty, kept and known, or in use by as many as count it; and a known prefix's beginning is known. */
function checkBlocks({ blocks, prefixes }: Scheduler, sequences: readonly Sequence[]): void {
  const users = new Map<number, number>();
  for (const s of sequences) for (const b of s.blocks) users.set(b, (users.get(b) ?? 0) + 1);
  for (let b = 0; b < blocks.total; b++) assert.equal(blocks.usersOf(b), users.get(b) ?? 0);
  assert.equal(blocks.used, users.size);
  const known = [...prefixes.blocks()];
  assert.equal(known.filter((e) => blocks.usersOf(e.block) === 0).length, blocks.kept);
  const roots = [0, 1, 2].flatMap((serial) => [rootOf(serial, false), rootOf(serial, true)]);
  const numbers = new Set([...roots, ...known.map((e) => e.prefix)]);
  for (const e of known) assert.ok(numbers.has(e.parent), "the ends of prefixes are evicted first");
}

/**
 * Runs a scheduler to the end with a model that is a function of the tokens, through a simulated cache: whatever a row
 * attends to must be what its own tokens would have written there.
 */
class Simulation {
  readonly scheduler: Scheduler;
  readonly #memory = new Map<number, number>();
  /** Sequences that wait for a token, and the step that it comes before. */
  readonly #late = new Map<Sequence, number>();
  readonly sequences: readonly {
    r: Request;
    s: Sequence;
    seen: number[];
    state: "new" | "live" | "done";
    endedAt: number;
  }[];
  steps = 0;
  rows = 0;

  constructor(
    readonly options: SchedulerOptions,
    requests: readonly Request[],
    readonly budget: PromptBudget = BUDGET,
    speculation = false,
  ) {
    this.scheduler = new Scheduler(options);
    this.sequences = requests.map((r, i) => ({
      r,
      s: new Sequence(
        i,
        r.prompt,
        r.outputs,
        speculation ? new PromptLookup(Math.min(options.contextLength, r.prompt.length + r.produce)) : null,
        r.adapter > 0 ? { slot: r.adapter - 1, serial: r.adapter } : null,
      ),
      seen: [],
      state: "new",
      endedAt: -1,
    }));
  }

  run(): this {
    for (;; this.steps++) {
      assert.ok(this.steps < 5000, "the scheduler makes progress");
      this.#arrive();
      if (this.sequences.every((q) => q.state === "done")) break;
      this.#step();
      checkBlocks(this.scheduler, this.sequences.map((q) => q.s));
    }
    assert.equal(this.scheduler.blocks.used, 0, "no block leaks");
    assert.equal(this.scheduler.blocks.available, this.options.kvBlocks);
    assert.ok(this.scheduler.idle);
    return this;
  }

  #arrive(): void {
    for (const q of this.sequences) {
      if (q.state === "new" && q.r.at <= this.steps) {
        this.scheduler.add(q.s);
        q.state = "live";
      }
      if (q.state === "live" && q.r.cancelAt !== null && q.r.cancelAt <= this.steps) this.#end(q);
    }
  }

  #end(q: Simulation["sequences"][number]): void {
    this.scheduler.remove(q.s);
    if (this.#late.delete(q.s)) q.seen.pop(); // its token was never chosen
    q.state = "done";
    q.endedAt = this.steps;
  }

  #step(): void {
    for (const [s, due] of this.#late) if (due <= this.steps) this.#choose(s);
    const decoding = this.sequences.filter(({ s }) =>
      s.slot >= 0 && s.needed === s.tokens.length - 1 && s.computed > 0 && s.computed >= s.needed &&
      s.long === this.#isLong(s)
    );
    const step = this.scheduler.next(this.budget);
    if (!step) return assert.ok(this.scheduler.idle || this.#late.size > 0, "a step comes while work waits");
    this.rows += step.rows.length;
    this.#checkRows(step);
    for (const { s } of decoding) {
      assert.ok(
        s.slot < 0 || this.scheduler.blocks.available === 0 || step.rows.some((r) => r.sequence === s),
        "who decodes is in every step",
      );
    }
    this.#compute(step);
    for (const { sequence: s, position, token, output } of step.rows) {
      if (output && s.tokens[position] === token) this.#output(s, position);
    }
  }

  #checkRows({ rows, shape }: Step): void {
    assert.equal(shape.decodeRows + shape.promptRows, rows.length);
    assert.ok(rows.length <= this.options.maxRows);
    const { mixedMs, rowMs } = this.budget;
    if (shape.decodeRows > 0) assert.ok(shape.promptRows <= Math.max(16, mixedMs / rowMs(0)));
    const next = new Map<Sequence, number>();
    for (const { sequence: s, position } of rows) {
      assert.equal(position, next.get(s) ?? position, "a sequence's rows are in order");
      next.set(s, position + 1);
    }
    const slots = rows.map(({ sequence: { adapter } }) => adapter ? adapter.slot : -1);
    assert.deepEqual(slots, slots.toSorted((a, b) => a - b), "the rows of one adapter are a run");
  }

  #isLong(s: Sequence): boolean {
    return s.tokens.length > (this.options.longBeyond ?? Infinity);
  }

  /**
   * Writes all rows, then reads what each attends to, as the attention kernels do. Long sequences write something else, and
   * so do those of each adapter.
   */
  #compute({ rows }: Step): void {
    const contents = (s: Sequence, tokens: readonly number[], length: number) =>
      contentsOf(tokens, length).map((hash) => (s.long ? ~hash : hash) ^ (s.adapter?.serial ?? 0));
    const slot = (s: Sequence, p: number) =>
      s.blocks[Math.floor(p / KV_BLOCK_TOKENS)] * KV_BLOCK_TOKENS + p % KV_BLOCK_TOKENS;
    const written = new Set<number>(), inputs = new Map<Sequence, number[]>();
    for (const { sequence: s, position, token } of rows) {
      if (!inputs.has(s)) inputs.set(s, s.tokens.slice(0, position));
      const input = inputs.get(s)!;
      input.push(token);
      const at = slot(s, position);
      assert.ok(!written.has(at), "no two rows write one slot");
      assert.equal(
        this.scheduler.blocks.usersOf(Math.floor(at / KV_BLOCK_TOKENS)),
        1,
        "shared blocks are read only",
      );
      written.add(at);
      assert.equal(s.long, this.#isLong(s));
      assert.ok(
        s.long || position < (this.options.longBeyond ?? Infinity),
        "no draft makes a short sequence long",
      );
      this.#memory.set(at, contents(s, input, position + 1).at(-1)!);
    }
    for (const { sequence: s, position } of rows) {
      contents(s, inputs.get(s)!, position + 1).forEach((hash, p) =>
        assert.equal(this.#memory.get(slot(s, p)), hash, "the cache holds what the row attends to")
      );
    }
  }

  #output(s: Sequence, position: number): void {
    const q = this.sequences[s.id];
    q.seen.push(position);
    s.needed = position + 1;
    if (position < s.tokens.length - 1) return;
    if (q.r.late > 0 && s.tokens.length % 3 === 0) this.#late.set(s, this.steps + q.r.late);
    else this.#choose(s);
  }
  #choose(s: Sequence): void {
    const q = this.sequences[s.id];
    this.#late.delete(s);
    s.tokens.push(nextToken(s.tokens));
    if (s.tokens.length - s.promptLength >= q.r.produce || s.tokens.length >= this.options.contextLength) {
      this.#end(q);
    }
  }
}
const simulate = (options: Partial<SchedulerOptions>, requests: readonly Request[], speculation = false) =>
  new Simulation({ ...OPTIONS, ...options }, requests, BUDGET, speculation).run();

/** Prompts that begin alike more or less far, of tokens that `nextToken()` gives too. */
const prompts = fc.tuple(
  fc.integer({ min: 0, max: 2 }),
  fc.integer({ min: 0, max: 70 }),
  fc.integer({ min: 1, max: 20 }),
)
  .map(([family, shared, own]) => [
    ...prompt(shared).map((i) => (i * (family + 1)) % 3),
    ...prompt(own).map((i) => (shared + i) % 3),
  ]);
const requests = fc.record({
  prompt: prompts,
  outputs: fc.constantFrom<Outputs>("last", "last", "last", "all"),
  produce: fc.integer({ min: 1, max: 40 }),
  at: fc.integer({ min: 0, max: 60 }),
  cancelAt: fc.option(fc.integer({ min: 0, max: 80 }), { freq: 5 }),
  late: fc.constantFrom(0, 0, 1, 5),
  adapter: fc.constantFrom(0, 0, 1, 2),
});

Deno.test("Scheduler completes every request as if it were alone, reads what was written, leaks no block", () => {
  fc.assert(
    fc.property(
      fc.array(requests, { minLength: 1, maxLength: 12 }),
      fc.record({
        kvBlocks: fc.integer({ min: 6, max: 30 }),
        maxRows: fc.integer({ min: 4, max: 160 }),
        maxSequences: fc.integer({ min: 1, max: 4 }),
        prefixCache: fc.boolean(),
        longBeyond: fc.constantFrom(Infinity, Infinity, 17, 40, 64),
      }),
      fc.record({ mixedMs: fc.integer({ min: 0, max: 60 }), aloneMs: fc.integer({ min: 1, max: 200 }) }),
      fc.boolean(),
      (requests, options, ms, speculation) => {
        const budget = { ...ms, rowMs: (p: number) => 1 + p / 50 };
        const { sequences } = new Simulation({ ...OPTIONS, ...options }, requests, budget, speculation).run();
        for (const { r, s, seen } of sequences) {
          const expected = generated(r, OPTIONS.contextLength);
          if (r.cancelAt !== null) expected.length = Math.min(expected.length, s.tokens.length);
          assert.deepEqual(s.tokens, expected);
          const first = r.outputs === "all" ? 0 : r.prompt.length - 1;
          const outputs = prompt(s.tokens.length - 1 - first, first);
          if (r.cancelAt !== null) outputs.length = seen.length;
          assert.deepEqual(seen, outputs, "each output once, in order");
        }
      },
    ),
    { numRuns: 250 },
  );
});

Deno.test("Scheduler.next() takes decodes first and fills whole tiles in the time that prompts get", () => {
  const scheduler = new Scheduler({ ...OPTIONS, maxRows: 64, kvBlocks: 30 });
  const a = new Sequence(0, prompt(4), "last"), b = new Sequence(1, prompt(90), "last");
  scheduler.add(a);
  assert.equal(scheduler.next(BUDGET)!.rows.length, 4);
  a.tokens.push(9);
  scheduler.add(b);
  const rows = (mixedMs: number) => scheduler.next({ ...BUDGET, mixedMs })!;
  const step = rows(40);
  assert.equal(step.rows[0].sequence, a);
  assert.deepEqual(step.shape, { decodeRows: 1, promptRows: 31, promptContext: 31 * 16 });
  a.tokens.push(9);
  assert.equal(rows(0).rows.length, 16, "a tile whatever it costs");
});

Deno.test("Scheduler gives a short prompt its turn before the rest of a long one", () => {
  const { sequences } = simulate({ maxRows: 16, kvBlocks: 30 }, [
    request({ prompt: prompt(90), produce: 1 }),
    request({ prompt: prompt(10, 100), produce: 1, at: 1 }),
  ]);
  assert.deepEqual(sequences.map((q) => q.endedAt), [6, 1]);
});

Deno.test("Scheduler lets a long prompt through a stream of short ones", () => {
  const length = 90, each = 16;
  const { sequences, rows } = simulate({ maxRows: 16, kvBlocks: 40, maxSequences: 8 }, [
    request({ prompt: prompt(length), produce: 1 }),
    ...Array.from({ length: 60 }, (_, i) => request({ prompt: prompt(each, 100 * i), produce: 1, at: i })),
  ]);
  assert.ok(rows > 60 * each, "without a gap in the stream");
  assert.ok(sequences[0].endedAt > length / 16, "short ones go first");
  assert.ok(sequences[0].endedAt <= (length / 0.5 + length) / 16 + 1, "for twice its own rows");
});

Deno.test("Scheduler drafts for few sequences only, and not beyond their end", () => {
  const repeats = Array.from({ length: 30 }, (_, i) => i % 3);
  const rows = (sequences: number, maxLength: number) => {
    const scheduler = new Scheduler({ ...OPTIONS, maxSequences: 8, kvBlocks: 30, maxRows: 300 });
    const list = Array.from(
      { length: sequences },
      (_, i) => new Sequence(i, repeats, "last", new PromptLookup(maxLength)),
    );
    for (const s of list) scheduler.add(s);
    scheduler.next(BUDGET);
    for (const s of list) s.tokens.push(0);
    return scheduler.next(BUDGET)!.rows.length / sequences;
  };
  assert.ok(rows(1, 90) > 1);
  assert.ok(rows(4, 90) > 1);
  assert.equal(rows(5, 90), 1);
  assert.equal(rows(1, 32), 1, "the next token is the last");
});

/** A sequence ready to decode a text that repeats itself; `later` ones came after it. */
function drafting(scheduler: Scheduler, length: number, ...later: Sequence[]): Sequence {
  const s = new Sequence(0, Array.from({ length }, (_, i) => i % 3), "last", new PromptLookup(90));
  for (const one of [s, ...later]) scheduler.add(one);
  scheduler.next(BUDGET);
  s.needed = length;
  s.tokens.push(length % 3);
  return s;
}

Deno.test("Scheduler counts the drafts that were right, also of a sequence that ends with them", () => {
  for (const right of [0, 1]) {
    const scheduler = new Scheduler(OPTIONS);
    const s = drafting(scheduler, 30);
    const [, draft] = scheduler.next(BUDGET)!.rows;
    s.tokens.push(...[draft.token].slice(0, right));
    s.needed = 31 + right; // the last row taken gave a stop token
    scheduler.remove(s);
    assert.ok(scheduler.drafted >= 1);
    assert.equal(scheduler.accepted, right);
  }
});

Deno.test("Scheduler drafts with blocks only that no decoding sequence needs", () => {
  const scheduler = new Scheduler({ ...OPTIONS, kvBlocks: 3, contextLength: 48, prefixCache: false });
  const b = new Sequence(1, prompt(16), "last");
  const a = drafting(scheduler, 15, b);
  b.tokens.push(9);
  assert.deepEqual(scheduler.next(BUDGET)!.rows.map((r) => r.sequence), [a, b]);
});

Deno.test("Scheduler takes one row of a prompt whose beginning is cached, without drafts", () => {
  const scheduler = new Scheduler(OPTIONS);
  const a = drafting(scheduler, 33);
  scheduler.remove(a);
  scheduler.add(new Sequence(1, a.tokens.slice(0, 33), "last", new PromptLookup(90)));
  assert.equal(scheduler.next(BUDGET)!.rows.length, 1);
});

Deno.test("Scheduler runs several decoding sequences in one step", () => {
  const scheduler = new Scheduler({ ...OPTIONS, kvBlocks: 30 });
  const list = [0, 1, 2].map((i) => new Sequence(i, prompt(3), "last"));
  for (const s of list) scheduler.add(s);
  assert.equal(scheduler.next(BUDGET)!.rows.length, 9);
  for (const s of list) s.tokens.push(1);
  assert.deepEqual(scheduler.next(BUDGET)!.rows.map((r) => r.sequence.id), [0, 1, 2]);
});

Deno.test("Scheduler preempts the youngest sequence when blocks run out and finishes it later", () => {
  const { sequences, rows } = simulate({ kvBlocks: 6, maxSequences: 2, prefixCache: false }, [
    request({ prompt: prompt(40), produce: 40 }),
    request({ prompt: prompt(20), produce: 40 }),
  ]);
  for (const { s } of sequences) assert.equal(s.tokens.length - s.promptLength, 40);
  assert.ok(rows > 40 + 39 + 20 + 39, "something was computed again");
});

Deno.test("Scheduler computes a known beginning once, all but the last token", () => {
  const beginning = prompt(48);
  const { scheduler, rows, sequences } = simulate({ kvBlocks: 20 }, [
    request({ prompt: [...beginning, 100], produce: 1 }),
    request({ prompt: [...beginning, 200, 201], produce: 1, at: 5 }),
    request({ prompt: beginning, produce: 1, at: 10 }),
  ]);
  assert.deepEqual(sequences.map(({ s }) => s.cached), [0, 48, 32]);
  assert.equal(rows, 49 + 2 + 16);
  assert.deepEqual([scheduler.prefixes.queries, scheduler.prefixes.hits, scheduler.prefixes.tokens], [
    3,
    2,
    80,
  ]);
});

Deno.test("Scheduler computes a common beginning once for sequences that come together", () => {
  const { sequences } = simulate({ kvBlocks: 20 }, [
    request({ prompt: [...prompt(70), 100], produce: 1 }),
    request({ prompt: [...prompt(70), 200], produce: 1 }),
  ]);
  assert.deepEqual(sequences.map(({ s }) => s.cached), [0, 64]);
});

Deno.test("Scheduler computes every row whose logits are asked for", () => {
  const { rows } = simulate({ kvBlocks: 20 }, [
    request({ prompt: prompt(48), outputs: "all", produce: 1 }),
    request({ prompt: prompt(48), outputs: "all", produce: 1, at: 5 }),
  ]);
  assert.equal(rows, 96);
});

Deno.test("Scheduler resumes a preempted sequence from what is left of its blocks", () => {
  const load = [
    request({ prompt: prompt(40), produce: 40 }),
    request({ prompt: prompt(20, 50), produce: 40 }),
  ];
  const options = { kvBlocks: 6, maxSequences: 2 };
  const kept = simulate(options, load), computed = simulate({ ...options, prefixCache: false }, load);
  assert.ok(kept.rows < computed.rows, "fewer rows are computed again");
  for (const { s } of kept.sequences) {
    assert.equal(s.cached, 0, "what it computed itself does not count as cached");
  }
});

Deno.test("Scheduler.add() refuses what exceeds the queue or the context window", () => {
  const scheduler = new Scheduler({ ...OPTIONS, maxWaiting: 1 });
  assert.throws(
    () => scheduler.add(new Sequence(0, prompt(97), "last")),
    (e) => e instanceof OatmillError && e.code === "context_length_exceeded",
  );
  scheduler.add(new Sequence(1, prompt(5), "last"));
  assert.throws(
    () => scheduler.add(new Sequence(2, prompt(5), "last")),
    (e) => e instanceof OatmillError && e.code === "rate_limit_exceeded",
  );
});

Deno.test("Scheduler begins a sequence anew when it has become long, with cached blocks of long ones only", () => {
  const scheduler = new Scheduler({ ...OPTIONS, maxRows: 64, longBeyond: 40 });
  const budget = { ...BUDGET, mixedMs: 1e6 };
  const rowsOf = (s: Sequence) => scheduler.next(budget)!.rows.filter((row) => row.sequence === s);
  const grows = new Sequence(0, prompt(40), "last"), long = new Sequence(1, prompt(41), "last");
  scheduler.add(grows);
  assert.equal(rowsOf(grows).length, 40);
  grows.needed = grows.tokens.push(40) - 1;
  assert.deepEqual(
    rowsOf(grows).map((row) => [row.position, row.output]),
    prompt(41).map((p) => [p, p === 40]),
  );
  grows.needed = grows.tokens.push(7) - 1;
  scheduler.add(long);
  assert.equal(rowsOf(long)[0].position, 2 * KV_BLOCK_TOKENS);
  const short = new Sequence(2, prompt(39), "last");
  scheduler.add(short);
  assert.equal(rowsOf(short)[0].position, 2 * KV_BLOCK_TOKENS, "of what the first was before it grew");
  assert.deepEqual([grows.long, long.long, short.long], [true, true, false]);
});
