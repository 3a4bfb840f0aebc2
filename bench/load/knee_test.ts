import assert from "node:assert/strict";
import fc from "fast-check";
import { type Judged, knee } from "./knee.ts";
import { nextLoad } from "./sweep.ts";

const SECONDS = 10;
/** A server that answers `capacity` requests a second, each of 10 tokens: an open loop's backlog comes after the end. */
function open(rate: number, capacity: number, more: Partial<Judged> = {}): Judged {
  const requests = rate * SECONDS,
    backlog = Math.max(0, rate / capacity - 1) * SECONDS;
  return {
    requests,
    succeeded: requests,
    interrupted: false,
    slo: {},
    slo_attainment: 1,
    duration_s: SECONDS + 0.5 + backlog,
    offered_per_second: rate,
    output_tokens_per_second: 10 * Math.min(rate, capacity),
    ...more,
  };
}
function closed(concurrency: number, capacity: number): Judged {
  return { ...open(Math.min(concurrency, capacity), capacity), offered_per_second: null };
}

Deno.test("a rate's knee is the last that the server keeps up with", () => {
  const loads = [1, 2, 4, 8, 16];
  assert.equal(knee(loads, loads.map((l) => open(l, 5))), 2);
  assert.equal(knee(loads, loads.map((l) => open(l, 100))), 4);
  assert.equal(knee(loads, loads.map((l) => open(l, 0.3))), null);
  // Half as much again as it can answer: all latencies are those of a queue that grows.
  assert.equal(knee([4, 6], [open(4, 4), open(6, 4)]), 0);
});

Deno.test("a concurrency's knee is the last at which throughput still rose", () => {
  const loads = [1, 2, 4, 8, 16];
  assert.equal(knee(loads, loads.map((l) => closed(l, 5))), 3, "8 still brings a quarter more than 4");
  assert.equal(knee(loads, loads.map((l) => closed(l, 4))), 2);
});

Deno.test("service levels and errors decide before throughput does", () => {
  const loads = [1, 2, 4], slo = { ttft: 100 };
  const attained = (share: number[]) =>
    share.map((slo_attainment, i) => open(loads[i], 100, { slo, slo_attainment }));
  assert.equal(knee(loads, attained([1, 0.95, 0.94])), 1);
  assert.equal(knee(loads, attained([0.9, 1, 1])), null, "all lower loads must hold too");
  assert.equal(knee(loads, loads.map((l) => open(l, 100, l === 4 ? { succeeded: 30 } : {}))), 1);
  assert.equal(knee(loads, attained([1, 1, 1]).map((s) => ({ ...s, requests: 0, succeeded: 0 }))), null);
});

Deno.test("doubling finds the knee of any capacity within a fifth, in few loads", () => {
  fc.assert(fc.property(fc.double({ min: 1.2, max: 900, noNaN: true }), (capacity) => {
    const loads: number[] = [];
    for (let next: number | null = 1; next !== null;) {
      loads.push(next);
      loads.sort((a, b) => a - b);
      next = nextLoad({ kind: "rate" }, loads, knee(loads, loads.map((l) => open(l, capacity))));
    }
    const found = loads[knee(loads, loads.map((l) => open(l, capacity)))!];
    assert.ok(found > capacity / 1.2 && found < capacity * 1.2, `${found} of ${capacity}`);
    assert.ok(loads.length <= 14, `${loads}`);
  }));
});

Deno.test("doubling ends: where nothing holds, at whole numbers of users, and at a server that is never full", () => {
  assert.equal(nextLoad({ kind: "rate" }, [1], null), null);
  assert.equal(nextLoad({ kind: "concurrency" }, [1, 2], 0), null);
  assert.equal(nextLoad({ kind: "concurrency" }, [4, 8], 0), 6);
  assert.equal(nextLoad({ kind: "rate" }, Array.from({ length: 13 }, (_, i) => 2 ** i), 12), null);
});
