import assert from "node:assert/strict";
import fc from "fast-check";
import type { Exchange } from "./client.ts";
import { LatencyHistogram } from "./histogram.ts";
import { LoadRecord } from "./record.ts";
import { Series } from "./series.ts";
import { parseDuration, parseSlo } from "./slo.ts";

const exchange = (
  sentMs: number,
  firstMs: number,
  gapsMs: number[],
  more: Partial<Exchange> = {},
): Exchange => ({
  sentMs,
  firstMs,
  endMs: firstMs + gapsMs.reduce((a, b) => a + b, 0),
  inputTokens: 10,
  cachedTokens: 0,
  outputTokens: gapsMs.length + 1,
  counted: "usage",
  chunks: gapsMs.length + 1,
  gapsMs,
  error: null,
  ...more,
});

Deno.test("a histogram's percentiles are those of the values, within 0.1 %", () => {
  const values = fc.array(fc.double({ min: 0.001, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 200 });
  fc.assert(fc.property(values, (values) => {
    const h = new LatencyHistogram(), sorted = values.toSorted((a, b) => a - b);
    values.forEach((v) => h.record(v));
    const stats = h.stats()!;
    for (const [name, p] of [["p50", 50], ["p90", 90], ["p99", 99], ["p99_9", 99.9]] as const) {
      const exact = sorted[Math.max(0, Math.ceil(p / 100 * values.length) - 1)];
      assert.ok(Math.abs(stats[name] - exact) <= exact * 1e-3 + 1e-3, `${name} ${stats[name]} ${exact}`);
    }
    assert.ok(stats.min <= stats.p50 && stats.p50 <= stats.p90 && stats.p99 <= stats.max);
    const curve = h.curve();
    assert.ok(curve.every(([, ms], i) => i === 0 || ms >= curve[i - 1][1]));
  }));
  assert.equal(new LatencyHistogram().stats(), null);
  const odd = new LatencyHistogram();
  [-5, 0, 1e12].forEach((v) => odd.record(v));
  assert.deepEqual([odd.stats()!.min, Math.round(odd.stats()!.max / 3.6e6)], [0, 1]);
});

Deno.test("times of a request: from when it was due, and per token after the first", () => {
  const record = new LoadRecord(1000, { ttft: 30, tpot: 11 });
  const times = record.add(exchange(1020, 1030, [10, 10, 13]), 1010)!;
  assert.deepEqual([times.ttftMs, times.e2eMs, times.tpotMs], [20, 53, 11]);
  record.add(exchange(1020, 1030, [10, 10, 14]), 1010);
  const { goodput, slo_attainment, from_send, duration_s } = record.summary();
  assert.equal(slo_attainment, 0.5);
  assert.equal(goodput * duration_s, 1);
  assert.equal(from_send.ttft_ms!.p50, 10);
});

Deno.test("without usage the summary says that pieces were counted", () => {
  const record = new LoadRecord(0, {});
  record.add(exchange(0, 1, [1], { counted: "chunks", inputTokens: null }), 0);
  assert.equal(record.summary().tokens_counted_by, "chunks");
  record.add(exchange(0, 1, [1]), 0);
  assert.equal(record.summary().tokens_counted_by, "both");
});

Deno.test("a series keeps tokens, requests and busy time exactly, however long it lasts", () => {
  const request = fc.record({
    sent: fc.integer({ min: 0, max: 1e6 }),
    wait: fc.nat(2000),
    gaps: fc.array(fc.nat(500)),
  });
  fc.assert(
    fc.property(fc.array(request, { minLength: 1, maxLength: 20 }), (requests) => {
      const series = new Series(0);
      const all = requests.map(({ sent, wait, gaps }) => exchange(sent, sent + wait, gaps));
      for (const e of all) series.add(e, { ttftMs: 1, e2eMs: 2 });
      const points = series.points(Math.max(...all.map((e) => e.endMs)));
      assert.ok(points.length <= 240);
      const near = (a: number, b: number) => Math.abs(a - b) < 1e-3 * (1 + b);
      const total = (f: (p: typeof points[0]) => number) => points.reduce((s, p) => s + f(p) * p.seconds, 0);
      assert.ok(near(total((p) => p.output_tokens_per_second), all.reduce((s, e) => s + e.outputTokens, 0)));
      assert.ok(near(total((p) => p.requests_per_second), all.length));
      assert.ok(near(total((p) => p.in_flight), all.reduce((s, e) => s + (e.endMs - e.sentMs) / 1000, 0)));
    }),
    { numRuns: 60 },
  );
});

Deno.test("service levels and durations are read, or refused", () => {
  assert.deepEqual(parseSlo("ttft=200ms, tpot=30, e2e=1.5s"), { ttft: 200, tpot: 30, e2e: 1500 });
  for (const text of ["", "ttft", "ttft=", "ttft=0", "itl=3", "ttft=1,ttft=2", "ttft=-1", "ttft=1=2"]) {
    assert.equal(parseSlo(text), null, text);
  }
  assert.equal(parseDuration("2", "s"), 2000);
  assert.equal(parseDuration("1h"), null);
});
