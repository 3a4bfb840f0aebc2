import assert from "node:assert/strict";
import fc from "fast-check";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { OatmillError } from "../errors.ts";
import { type Outputs, Scheduler, type SchedulerOptions, Sequence } from "./scheduler.ts";

const OPTIONS: SchedulerOptions = {
  maxSequences: 4,
  maxRows: 32,
  mixedPrefillRows: 8,
  kvBlocks: 8,
  contextLength: 96,
  maxWaiting: 100,
  prefixCache: true,
};

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
}
const request = (o: Partial<Request>): Request => ({
  prompt: prompt(20),
  outputs: "last",
  produce: 10,
  at: 0,
  cancelAt: null,
  ...o,
});

/** A model without weights: the next of three tokens is a function of all before it. */
const nextToken = (tokens: readonly number[]): number =>
  Math.abs(contentsOf(tokens, tokens.length).at(-1)! >> 8) % 3;

/** Every block is empty, kept and known, or in use by as many as count it; and a known prefix's beginning is known. */
function checkBlocks({ blocks, prefixes }: Scheduler, sequences: readonly Sequence[]): void {
  const users = new Map<number, number>();
  for (const s of sequences) for (const b of s.blocks) users.set(b, (users.get(b) ?? 0) + 1);
  for (let b = 0; b < blocks.total; b++) assert.equal(blocks.usersOf(b), users.get(b) ?? 0);
  assert.equal(blocks.used, users.size);
  const known = [...prefixes.blocks()];
  assert.equal(known.filter((e) => blocks.usersOf(e.block) === 0).length, blocks.kept);
  const numbers = new Set([0, ...known.map((e) => e.prefix)]);
  for (const e of known) assert.ok(numbers.has(e.parent), "the ends of prefixes are evicted first");
}

/**
 * Runs a scheduler to the end with a model that is a function of the tokens, through a simulated cache: whatever a row
 * attends to must be what its own tokens would have written there.
 */
class Simulation {
  readonly scheduler: Scheduler;
  readonly #memory = new Map<number, number>();
  readonly sequences: readonly { r: Request; s: Sequence; seen: number[]; state: "new" | "live" | "done" }[];
  steps = 0;
  rows = 0;

  constructor(readonly options: SchedulerOptions, requests: readonly Request[]) {
    this.scheduler = new Scheduler(options);
    this.sequences = requests.map((r, i) => ({
      r,
      s: new Sequence(i, r.prompt, r.outputs),
      seen: [],
      state: "new",
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
    q.state = "done";
  }

  #step(): void {
    const step = this.scheduler.next();
    if (!step) return assert.ok(this.scheduler.idle, "a step comes while work waits");
    assert.ok(step.rows.length <= this.options.maxRows);
    this.rows += step.rows.length;
    const slot = (s: Sequence, p: number) =>
      s.blocks[Math.floor(p / KV_BLOCK_TOKENS)] * KV_BLOCK_TOKENS + p % KV_BLOCK_TOKENS;
    const written = new Set<number>();
    for (const { sequence: s, position } of step.rows) {
      const at = slot(s, position);
      assert.ok(!written.has(at), "no two rows write one slot");
      assert.equal(
        this.scheduler.blocks.usersOf(Math.floor(at / KV_BLOCK_TOKENS)),
        1,
        "shared blocks are read only",
      );
      written.add(at);
      this.#memory.set(at, contentsOf(s.tokens, position + 1).at(-1)!);
    }
    for (const { sequence: s, position } of step.rows) {
      contentsOf(s.tokens, position + 1).forEach((contents, p) =>
        assert.equal(this.#memory.get(slot(s, p)), contents, "the cache holds what the row attends to")
      );
    }
    for (const { sequence: s, position } of step.rows.filter((r) => r.output)) this.#output(s, position);
  }

  #output(s: Sequence, position: number): void {
    const q = this.sequences[s.id];
    q.seen.push(position);
    s.needed = position + 1;
    if (position < s.tokens.length - 1) return;
    s.tokens.push(nextToken(s.tokens));
    if (s.tokens.length - s.promptLength >= q.r.produce || s.tokens.length >= this.options.contextLength) {
      this.#end(q);
    }
  }
}
const simulate = (options: Partial<SchedulerOptions>, requests: readonly Request[]): Simulation =>
  new Simulation({ ...OPTIONS, ...options }, requests).run();

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
});

Deno.test("Scheduler completes every request, reads what was written and leaks no block, whatever the load", () => {
  fc.assert(
    fc.property(
      fc.array(requests, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 6, max: 30 }),
      fc.boolean(),
      (requests, kvBlocks, prefixCache) => {
        const { sequences } = simulate({ kvBlocks, prefixCache }, requests);
        for (const { r, s, seen } of sequences) {
          if (r.cancelAt !== null) continue;
          const made = Math.min(r.produce, OPTIONS.contextLength - r.prompt.length);
          assert.equal(s.tokens.length - s.promptLength, made);
          const first = r.outputs === "all" ? 0 : r.prompt.length - 1;
          assert.deepEqual(seen, prompt(s.tokens.length - 1 - first, first), "each output once, in order");
        }
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("Scheduler.next() takes decodes first and keeps prompt chunks short beside them", () => {
  const scheduler = new Scheduler({ ...OPTIONS, kvBlocks: 30 });
  const a = new Sequence(0, prompt(4), "last"), b = new Sequence(1, prompt(60), "last");
  scheduler.add(a);
  assert.equal(scheduler.next()!.rows.length, 4);
  a.tokens.push(9);
  scheduler.add(b);
  const step = scheduler.next()!;
  assert.equal(step.rows[0].sequence, a);
  assert.equal(step.rows.length, 1 + OPTIONS.mixedPrefillRows);
});

Deno.test("Scheduler runs several decoding sequences in one step", () => {
  const scheduler = new Scheduler({ ...OPTIONS, kvBlocks: 30 });
  const list = [0, 1, 2].map((i) => new Sequence(i, prompt(3), "last"));
  for (const s of list) scheduler.add(s);
  assert.equal(scheduler.next()!.rows.length, 9);
  for (const s of list) s.tokens.push(1);
  assert.deepEqual(scheduler.next()!.rows.map((r) => r.sequence.id), [0, 1, 2]);
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
