import assert from "node:assert/strict";
import fc from "fast-check";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import { OatmillError } from "../errors.ts";
import { Scheduler, type SchedulerOptions, Sequence } from "./scheduler.ts";

const OPTIONS: SchedulerOptions = {
  maxSequences: 4,
  maxRows: 32,
  mixedPrefillRows: 8,
  kvBlocks: 8,
  contextLength: 96,
  maxWaiting: 100,
};

const prompt = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/**
 * Runs a scheduler to the end with a model that is a function of the tokens, through a simulated cache: every row must find
 * all earlier positions of its own sequence in its own blocks.
 */
function simulate(
  options: SchedulerOptions,
  requests: { prompt: number; produce: number; at: number; cancelAt: number | null }[],
) {
  const scheduler = new Scheduler(options);
  const cache = new Map<string, number>();
  const sequences = requests.map((r, i) => ({
    r,
    s: new Sequence(i, prompt(r.prompt), "last"),
    done: false,
    added: false,
  }));
  let steps = 0, rows = 0;
  for (;; steps++) {
    assert.ok(steps < 5000, "the scheduler makes progress");
    for (const q of sequences) {
      if (!q.added && q.r.at <= steps) {
        scheduler.add(q.s);
        q.added = true;
      }
      if (q.added && !q.done && q.r.cancelAt !== null && q.r.cancelAt <= steps) {
        scheduler.remove(q.s);
        q.done = true;
      }
    }
    if (sequences.every((q) => q.done)) break;
    const step = scheduler.next();
    if (!step) {
      assert.ok(scheduler.idle, "a step comes while work waits");
      continue;
    }
    assert.ok(step.rows.length <= options.maxRows);
    rows += step.rows.length;
    const seen = new Set<string>();
    for (const { sequence: s, position } of step.rows) {
      const at = (p: number) => `${s.blocks[Math.floor(p / KV_BLOCK_TOKENS)]}:${p % KV_BLOCK_TOKENS}`;
      assert.ok(!seen.has(at(position)), "no two rows write one slot");
      seen.add(at(position));
      cache.set(at(position), s.id * 1000 + position);
    }
    for (const { sequence: s, position, output } of step.rows) {
      for (let p = 0; p <= position; p++) {
        const at = `${s.blocks[Math.floor(p / KV_BLOCK_TOKENS)]}:${p % KV_BLOCK_TOKENS}`;
        assert.equal(cache.get(at), s.id * 1000 + p, "the cache holds what the row attends to");
      }
      assert.equal(output, position === s.tokens.length - 1);
    }
    for (const { sequence: s, output } of step.rows.filter((r) => r.output)) {
      assert.ok(output);
      const q = sequences[s.id];
      s.tokens.push(0);
      if (s.tokens.length - s.promptLength >= q.r.produce || s.tokens.length >= options.contextLength) {
        scheduler.remove(s);
        q.done = true;
      }
    }
  }
  assert.equal(scheduler.blocks.used, 0, "no block leaks");
  assert.ok(scheduler.idle);
  return { sequences, steps, rows };
}

Deno.test("Scheduler completes every request and leaks no block, whatever the load", () => {
  const request = fc.record({
    prompt: fc.integer({ min: 1, max: 90 }),
    produce: fc.integer({ min: 1, max: 40 }),
    at: fc.integer({ min: 0, max: 60 }),
    cancelAt: fc.option(fc.integer({ min: 0, max: 80 }), { freq: 5 }),
  });
  fc.assert(
    fc.property(
      fc.array(request, { minLength: 1, maxLength: 12 }),
      fc.integer({ min: 6, max: 30 }),
      (requests, kvBlocks) => {
        const { sequences } = simulate({ ...OPTIONS, kvBlocks }, requests);
        for (const { r, s } of sequences) {
          if (r.cancelAt !== null) continue;
          assert.equal(
            s.tokens.length - s.promptLength,
            Math.min(r.produce, OPTIONS.contextLength - r.prompt),
          );
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
  const { sequences, rows } = simulate({ ...OPTIONS, kvBlocks: 6, maxSequences: 2 }, [
    { prompt: 40, produce: 40, at: 0, cancelAt: null },
    { prompt: 20, produce: 40, at: 0, cancelAt: null },
  ]);
  for (const { s } of sequences) assert.equal(s.tokens.length - s.promptLength, 40);
  assert.ok(rows > 40 + 39 + 20 + 39, "something was computed again");
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
