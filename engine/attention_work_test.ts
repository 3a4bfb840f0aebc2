import assert from "node:assert/strict";
import fc from "fast-check";
import { PART_TOKENS } from "../kernels/kv_layout.ts";
import { type AttentionStep, shareAttention, tileRowsOf } from "./attention_work.ts";

const step = (o: Partial<AttentionStep>): AttentionStep => ({
  contexts: Int32Array.of(1),
  tables: Int32Array.of(64),
  kvHeads: 3,
  groupSize: 3,
  window: 0,
  threads: 2,
  splitRows: 16,
  ...o,
});

/** Steps of the scheduler: runs of rows of a sequence, contexts rising by one. */
const steps = fc.record({
  runs: fc.array(
    fc.record({ first: fc.integer({ min: 1, max: 5000 }), rows: fc.integer({ min: 1, max: 40 }) }),
    {
      minLength: 1,
      maxLength: 6,
    },
  ),
  kvHeads: fc.integer({ min: 1, max: 8 }),
  groupSize: fc.integer({ min: 1, max: 9 }),
  window: fc.constantFrom(0, 0, 600, 4096),
  threads: fc.integer({ min: 1, max: 9 }),
  splitRows: fc.integer({ min: 1, max: 16 }),
}).map(({ runs, ...rest }): AttentionStep => ({
  ...rest,
  contexts: Int32Array.from(
    runs.flatMap(({ first, rows }) => Array.from({ length: rows }, (_, i) => first + i)),
  ),
  tables: Int32Array.from(runs.flatMap(({ rows }, i) => new Array(rows).fill(64 + i))),
}));

Deno.test("shareAttention() computes every part of every row and KV head once, rows of one sequence together", () => {
  fc.assert(fc.property(steps, (s) => {
    const { calls, split } = shareAttention(s);
    assert.equal(calls.length, s.threads);
    const seen = new Set<string>();
    for (const c of calls.flat()) {
      assert.ok(c.rows <= tileRowsOf(s.groupSize));
      for (let row = c.row; row < c.row + c.rows; row++) {
        assert.equal(s.tables[row], s.tables[c.row]);
        for (let kvHead = c.kvHeadBegin; kvHead < c.kvHeadEnd; kvHead++) {
          for (let p = c.partBegin; p < c.partEnd; p++) {
            const key = `${row} ${kvHead} ${p}`;
            assert.ok(!seen.has(key), `${key} twice`);
            seen.add(key);
          }
        }
      }
    }
    s.contexts.forEach((to, row) => {
      const from = s.window > 0 ? Math.max(0, to - s.window) : 0;
      for (let p = Math.floor(from / PART_TOKENS); p * PART_TOKENS < to; p++) {
        for (let h = 0; h < s.kvHeads; h++) {
          assert.ok(seen.has(`${row} ${h} ${p}`), `${row} ${h} ${p} is missing`);
        }
      }
    });
    if (split) assert.ok(s.threads > 1 && s.contexts.length <= s.splitRows);
  }));
});

/** Tokens a thread reads for its rows. */
const loads = (s: AttentionStep): number[] =>
  shareAttention(s).calls.map((calls) =>
    calls.reduce((sum, c) => {
      const end = Math.min(c.partEnd * PART_TOKENS, s.contexts[c.row + c.rows - 1]);
      return sum + c.rows * (c.kvHeadEnd - c.kvHeadBegin) * (end - c.partBegin * PART_TOKENS);
    }, 0)
  );

Deno.test("shareAttention() gives threads about the same work: one long context, a prompt, many streams", () => {
  const long = step({ contexts: Int32Array.of(8000) });
  const prompt = step({
    contexts: Int32Array.from({ length: 256 }, (_, i) => i + 1),
    tables: new Int32Array(256).fill(64),
  });
  const streams = step({
    contexts: Int32Array.from({ length: 16 }, (_, i) => 100 + 10 * i),
    tables: Int32Array.from({ length: 16 }, (_, i) => i + 1),
  });
  assert.equal(shareAttention(long).split, true);
  assert.equal(shareAttention(prompt).split, false);
  for (const s of [long, prompt, streams]) {
    const all = loads(s);
    assert.ok(Math.min(...all) > 0.9 * Math.max(...all), `${all}`);
  }
});

Deno.test("shareAttention() splits no context for one thread, for short contexts or without room", () => {
  assert.equal(shareAttention(step({ contexts: Int32Array.of(8000), threads: 1 })).split, false);
  assert.equal(shareAttention(step({ contexts: Int32Array.of(PART_TOKENS) })).split, false);
  const two = { contexts: Int32Array.of(8000, 8000), tables: Int32Array.of(64, 128) };
  assert.equal(shareAttention(step({ ...two, splitRows: 1 })).split, false);
});
