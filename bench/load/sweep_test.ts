import assert from "node:assert/strict";
import { runComparison } from "./compare.ts";
import { selfCheck } from "./self_check.ts";
import { runSweep } from "./sweep.ts";
import { runSweepComparison } from "./sweep_compare.ts";
import { runLoad } from "./load.ts";
import { startStub } from "./stub_server.ts";
import { openLoad, plan } from "./testing/plans.ts";
import { ScriptedServer, wholeAnswer } from "./testing/scripted_server.ts";

const COUNT = { requests: 12, seconds: Infinity };

Deno.test("a sweep runs every load once, rising, and names its knee", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const started: number[] = [];
  const indices: number[] = [];
  const planOf = (rate: number, index: number) => {
    indices.push(index);
    return plan(server.url, {
      load: openLoad({ rate }),
      limit: COUNT,
      slo: { e2e: rate > 100 ? 0.001 : 60_000 },
    });
  };
  const result = await runSweep({ kind: "rate", loads: [50, 100, 200], from: 1 }, planOf, {
    onPoint: (value) => started.push(value),
  });
  assert.deepEqual(started, [50, 100, 200]);
  assert.deepEqual(result.points.map((p) => [p.value, p.holds, p.requests]), [
    [50, true, 12],
    [100, true, 12],
    [200, false, 12],
  ]);
  assert.equal(result.knee, 100);
  assert.deepEqual(indices, [0, 1, 2], "each load may have prompts of its own");
  started.length = 0;
  const doubled = await runSweep({ kind: "rate", loads: null, from: 50 }, planOf, {
    onPoint: (v) => started.push(v),
  });
  assert.deepEqual(started, [50, 100, 200, 141, 119]);
  assert.equal(doubled.knee, 100);
});

Deno.test("a sweep that is ended keeps what it has", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const abort = new AbortController();
  const result = await runSweep(
    { kind: "concurrency", loads: [1, 2, 4], from: 1 },
    (concurrency) => plan(server.url, { load: { kind: "closed", concurrency } }),
    { signal: abort.signal, onPoint: (value) => value === 2 && abort.abort() },
  );
  assert.deepEqual(result.points.map((p) => [p.value, p.interrupted]), [[1, false], [2, true]]);
});

Deno.test("a comparison takes turns and pairs its rounds", async () => {
  const models: string[] = [];
  await using server = new ScriptedServer(({ model, prompt }) => {
    models.push(`${model} ${prompt}`);
    return wholeAnswer(model === "a" ? 8 : 2);
  });
  const side = (model: string) => ({
    name: model,
    plan: (round: number) => {
      const base = plan(server.url, { limit: { requests: 2, seconds: Infinity } });
      return {
        ...base,
        target: { ...base.target, model },
        prompts: { next: () => ({ prompt: `${round}`, outputTokens: 8 }) },
      };
    },
  });
  const { a, b, ratios } = await runComparison([side("a"), side("b")], 2);
  assert.deepEqual(models, ["a 0", "a 0", "b 0", "b 0", "a 1", "a 1", "b 1", "b 1"]);
  assert.deepEqual([a.blocks.length, b.blocks.length], [2, 2]);
  const tokens = (side: typeof a) => side.blocks.map((s) => s.output_tokens_per_second);
  const pairs = tokens(a).map((t, i) => t / tokens(b)[i]);
  assert.ok(Math.abs(ratios!.median.output_tokens_per_second - (pairs[0] + pairs[1]) / 2) < 1e-9);
  assert.equal(ratios!.spread.output_tokens_per_second.min, Math.min(...pairs));
});

Deno.test("two sides' sweep runs both at every load until both know their knee", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const started: string[] = [], seen = new Set<string>();
  /** A holds 100 requests a second, B 50. */
  const sidesAt = (rate: number, index: number) => {
    const side = (name: string, most: number) => ({
      name,
      plan: (round: number) => {
        seen.add(`${name} ${index} ${round}`);
        return plan(server.url, {
          load: openLoad({ rate }),
          limit: { requests: 4, seconds: Infinity },
          slo: { e2e: rate > most ? 0.001 : 60_000 },
        });
      },
    });
    return [side("a", 100), side("b", 50)] as const;
  };
  const onBlock = (value: number, name: string, round: number) => started.push(`${value} ${name} ${round}`);
  const given = { kind: "rate", loads: [50, 100, 200], from: 1 } as const;
  const { sweeps, compare } = await runSweepComparison(given, sidesAt, 2, { onBlock });
  const turns = [50, 100, 200].flatMap((v) => [`${v} a 0`, `${v} b 0`, `${v} a 1`, `${v} b 1`]);
  assert.deepEqual(started, turns);
  assert.deepEqual([sweeps.a.name, sweeps.a.knee, sweeps.b.name, sweeps.b.knee], ["a", 100, "b", 50]);
  assert.deepEqual(sweeps.ratios.map((at) => [at.value, at.ratios !== null]), [[50, true], [100, true], [
    200,
    true,
  ]]);
  assert.equal(compare.a.blocks[0].offered_per_second! < 100, true, "at the load that both hold");
  assert.equal(seen.size, 12, "each load has prompts of its own");
  const doubled = await runSweepComparison({ kind: "rate", loads: null, from: 50 }, sidesAt, 1);
  assert.deepEqual(doubled.sweeps.a.points.map((p) => p.value), [50, 59.5, 70.7, 100, 119, 141, 200]);
  assert.deepEqual([doubled.sweeps.a.knee, doubled.sweeps.b.knee], [100, 50]);
});

Deno.test("rounds that were not run to their end have no ratio", async () => {
  await using server = new ScriptedServer(() => wholeAnswer(2));
  const abort = new AbortController();
  const side = { name: "x", plan: () => plan(server.url) };
  const { a, b, ratios } = await runComparison([side, side], 3, {
    signal: abort.signal,
    onBlock: (_, round) => round === 0 && abort.abort(),
  });
  assert.deepEqual([a.blocks.length, b.blocks.length, ratios], [1, 0, null]);
});

Deno.test("the stub answers as it is asked; the self-check measures the client on it", async () => {
  await using stub = startStub({ firstTokenMs: 5, tokenMs: 2 });
  const measured = plan(`http://127.0.0.1:${stub.addr.port}/v1`, {
    load: openLoad({ rate: 50 }),
    limit: { requests: 25, seconds: Infinity },
  });
  const summary = await runLoad(measured);
  assert.deepEqual([summary.errors, summary.output_tokens, summary.chunks_per_token], [0, 100, 1]);
  // 5 ms and three times 2, however late they are read.
  assert.ok(summary.ttft_ms!.p50 >= 4 && summary.e2e_ms!.p50 >= 10);
  let cpuUs = 0;
  const check = await selfCheck(measured, summary, { cpuTimeUs: () => cpuUs += 1000 });
  assert.deepEqual([check.errors, check.requests], [0, 25]);
  assert.ok(check.added_ttft_ms!.p50 > 0 && check.schedule_lag_ms!.count === 25 && check.cpu_share! > 0);
  // A thousand microseconds between two looks, 25 requests, 4 tokens each.
  assert.deepEqual([check.cpu_us_per_request, check.cpu_us_per_token], [40, 10]);
});
