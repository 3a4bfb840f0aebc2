import assert from "node:assert/strict";
import { runLoad } from "./load.ts";
import type { RequestRow } from "./record.ts";
import { openLoad, plan } from "./testing/plans.ts";
import { ScriptedServer, textEvent, wholeAnswer } from "./testing/scripted_server.ts";

/** Stands still for so long after its first request. */
function stalling(ms: number): ScriptedServer {
  let stall: Promise<unknown> | null = null;
  return new ScriptedServer(async () => {
    await (stall ??= new Promise((done) => setTimeout(done, ms)));
    return wholeAnswer(2);
  });
}

Deno.test("a closed loop counts every token and piece, and keeps so many requests under way", async () => {
  let running = 0, most = 0;
  await using server = new ScriptedServer(async () => {
    most = Math.max(most, ++running);
    await new Promise((done) => setTimeout(done, 10));
    running--;
    return wholeAnswer(5, 7);
  });
  const summary = await runLoad(plan(server.url, {
    load: { kind: "closed", concurrency: 4 },
    limit: { requests: 40, seconds: Infinity },
    warmup: { requests: 8, seconds: Infinity },
  }));
  assert.equal(most, 4);
  assert.equal(summary.max_in_flight, 4);
  assert.equal(summary.warmup_requests, 8);
  assert.equal(summary.requests, 40);
  assert.equal(server.bodies.length, summary.warmup_requests + summary.requests);
  const { requests, errors, output_tokens, input_tokens, itl_ms, ttft_ms, tpot_ms, e2e_ms } = summary;
  assert.deepEqual([errors, output_tokens, input_tokens], [0, 5 * requests, 7 * requests]);
  assert.deepEqual([itl_ms?.count, ttft_ms?.count, tpot_ms?.count], [4 * requests, requests, requests]);
  assert.ok(ttft_ms!.min >= 9 && e2e_ms!.p50 >= ttft_ms!.p50);
  const tokens = summary.series.reduce((sum, p) => sum + p.output_tokens_per_second * p.seconds, 0);
  assert.ok(Math.abs(tokens - output_tokens) < 1e-6 * output_tokens, "the series holds all of them");
  assert.ok(Math.abs(summary.output_tokens_per_second * summary.duration_s - output_tokens) < 1e-6);
  assert.equal(summary.goodput, summary.requests_per_second);
  assert.deepEqual([summary.corrected, summary.offered_per_second, summary.interrupted], [
    false,
    null,
    false,
  ]);
  assert.deepEqual(summary.warnings.length, 1);
  assert.match(summary.warnings[0], /requests are few/);
});

Deno.test("an open loop does not wait for answers; latency counts from when a request was due", async () => {
  // The first answer takes 400 ms: with one place, 39 requests become due meanwhile.
  await using server = stalling(400);
  const limit = { requests: 60, seconds: Infinity };
  const one = await runLoad(plan(server.url, { load: openLoad({}, 1), limit, slo: { ttft: 100 } }));
  assert.equal(one.requests, 60);
  // One request alone was slow to answer: a client that sends late does not see what users see.
  const { p50, max } = one.from_send.ttft_ms!;
  assert.ok(max > 300 && one.ttft_ms!.p50 > 2 * p50, `${p50} ${max} ${one.ttft_ms!.p50}`);
  assert.ok(one.held_back > 20 && one.corrected && one.slo_attainment! < 0.7);
  assert.match(one.warnings.join(), /requests waited on the client's side/);
  assert.equal(one.offered_per_second, 100);
});

Deno.test("with places enough an open loop holds its schedule through a stall", async () => {
  await using server = stalling(300);
  const limit = { requests: 60, seconds: Infinity };
  const many = await runLoad(plan(server.url, { load: openLoad(), limit }));
  assert.deepEqual([many.requests, many.held_back, many.errors], [60, 0, 0]);
  assert.ok(many.max_in_flight > 15, `${many.max_in_flight}`);
  assert.ok(many.client.schedule_lag_ms!.count === 60);
});

Deno.test("a time without requests at a load's end counts as time", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(1));
  // Two a second: due at 0 and 500 ms.
  const limit = { requests: Infinity, seconds: 0.9 };
  const { requests, duration_s, offered_per_second } = await runLoad(
    plan(server.url, { load: openLoad({ rate: 2 }), limit }),
  );
  assert.deepEqual([requests, duration_s, offered_per_second], [2, 0.9, 2 / 0.9]);
});

Deno.test("a duration bounds what is sent, the warm-up comes before and is not counted", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(1));
  const summary = await runLoad(plan(server.url, {
    load: openLoad({ rate: 50 }),
    limit: { requests: Infinity, seconds: 0.6 },
    warmup: { requests: Infinity, seconds: 0.2 },
  }));
  assert.deepEqual([summary.warmup_requests, summary.requests, summary.offered_per_second], [10, 30, 50]);
  assert.equal(summary.tpot_ms, null, "one token has no time per further token");
});

Deno.test("errors are counted by kind, lower goodput, and leave no latency", async () => {
  await using server = new ScriptedServer((_, i) =>
    i % 4 === 0
      ? { status: 429, pieces: ['{"error":{"message":"The queue is full"}}'] }
      : i % 4 === 1
      ? { pieces: [textEvent("x")] }
      : wholeAnswer(3)
  );
  const summary = await runLoad(plan(server.url, {
    load: openLoad({ rate: 200 }),
    limit: { requests: 40, seconds: Infinity },
    slo: { ttft: 60_000 },
  }));
  assert.deepEqual([summary.requests, summary.succeeded, summary.errors], [40, 20, 20]);
  assert.equal(summary.errors_by_kind.http_429.count, 10);
  assert.equal(summary.errors_by_kind.http_429.message, "The queue is full");
  assert.equal(summary.errors_by_kind.truncated.count, 10);
  assert.deepEqual([summary.ttft_ms!.count, summary.output_tokens, summary.slo_attainment], [20, 60, 0.5]);
  assert.ok(Math.abs(summary.goodput * summary.duration_s - 20) < 1e-6);
  assert.match(summary.warnings.join(), /20 of 40 requests failed/);
});

Deno.test("the caller's end gives what was measured, cuts off what is under way, and leaves nothing open", async () => {
  const hang = Promise.withResolvers<void>();
  await using server = new ScriptedServer((_, i) =>
    i < 5 ? wholeAnswer(2) : { pieces: [textEvent("x"), hang.promise] }
  );
  for (const load of [openLoad({}, 3), { kind: "closed", concurrency: 3 } as const]) {
    const abort = new AbortController(), before = server.bodies.length;
    const running = runLoad(plan(server.url, { load, limit: { requests: Infinity, seconds: 60 } }), {
      signal: abort.signal,
      onProgress: ({ inFlight }) => inFlight === 3 && abort.abort(),
    });
    const summary = await running;
    assert.ok(summary.interrupted && summary.unfinished === 3 && summary.errors === 0);
    assert.equal(summary.requests, Math.max(0, 5 - before));
    assert.match(summary.warnings[0], /^Ended early/);
  }
  hang.resolve();
});

Deno.test("progress and single requests are told, and what a callback throws ends the load", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const seen: RequestRow[] = [];
  const limit = { requests: 20, seconds: Infinity };
  const { requests } = await runLoad(plan(server.url, { limit }), { onRequest: (row) => seen.push(row) });
  assert.equal(seen.length, requests);
  for (const { due_s, sent_s, ttft_ms, e2e_ms, output_tokens, input_tokens, error } of seen) {
    assert.ok(due_s >= 0 && due_s === sent_s && ttft_ms! > 0 && e2e_ms! >= ttft_ms!);
    assert.deepEqual([input_tokens, output_tokens, error], [3, 2, null]);
  }
  const failing = runLoad(plan(server.url, { limit }), {
    onRequest: () => {
      throw new Error("full disk");
    },
  });
  await assert.rejects(failing, /full disk/);
});
