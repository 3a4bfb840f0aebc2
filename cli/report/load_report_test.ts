import assert from "node:assert/strict";
import { parseHTML } from "linkedom";
import type { Exchange } from "../../bench/load/client.ts";
import { pairedRatios } from "../../bench/load/compare.ts";
import type { LoadSummary } from "../../bench/load/load.ts";
import { LoadRecord } from "../../bench/load/record.ts";
import type { LoadResult } from "../../bench/load/result.ts";
import { loadLines } from "../bench_load_table.ts";
import { loadReportHtml } from "./load_report.ts";

const ATTACK = `<script>alert("1")</script>"'><img src=http://evil.example/x onerror=alert(1)>`;

/** @param ms of each gap: slower is larger */
function summary(ms: number, more: Partial<LoadSummary> = {}): LoadSummary {
  const record = new LoadRecord(0, { ttft: 60 });
  for (let i = 0; i < 40; i++) {
    const sentMs = 100 * i, firstMs = sentMs + 50 + i / 2;
    record.add(
      {
        sentMs,
        firstMs,
        endMs: firstMs + 3 * ms,
        inputTokens: 9,
        cachedTokens: 3,
        outputTokens: 4,
        counted: "usage",
        chunks: 4,
        gapsMs: [ms, ms, ms],
        error: null,
      } satisfies Exchange,
      sentMs - 1,
    );
  }
  return {
    load: { kind: "closed", concurrency: 4 },
    ...record.summary(),
    offered_per_second: null,
    corrected: true,
    warmup_requests: 5,
    max_in_flight: 4,
    held_back: 0,
    interrupted: false,
    client: { schedule_lag_ms: null, cpu_share: 0.1, cpu_us_per_token: 9 },
    warnings: [],
    ...more,
  };
}
function result(more: Partial<LoadResult> = {}): LoadResult {
  const setting = {
    oatmill: "test",
    made: "2026-01-01T00:00:00Z",
    url: "http://127.0.0.1:8000/v1",
    model: "tiny",
  };
  return {
    ...setting,
    endpoint: "completions",
    prompts: "random words",
    seed: 0,
    ...summary(10),
    sweep: null,
    sweeps: null,
    compare: null,
    self_check: null,
    ...more,
  };
}
const point = (value: number, ms: number, holds: boolean) => ({ value, holds, ...summary(ms) });
const SWEEP = {
  kind: "rate",
  points: [point(1, 10, true), point(2, 12, true), point(4, 40, false)],
  knee: 2,
} as const;
function comparison(name = "dense") {
  const a = { name: "compressed", blocks: [summary(10), summary(11)] },
    b = { name, blocks: [summary(20), summary(22)] };
  return { a, b, ratios: pairedRatios(a.blocks, b.blocks) };
}
const documentOf = async (r: LoadResult) => parseHTML(await loadReportHtml(r)).document;
const titles = (document: Document) => [...document.querySelectorAll("section h2")].map((h) => h.textContent);

Deno.test("a load's page has its charts, each labelled, beside a table of the same numbers", async () => {
  const { document } = parseHTML(await loadReportHtml(result()));
  assert.deepEqual(titles(document), [
    "Latency",
    "Time to first token",
    "Time per output token",
    "Between pieces of the stream",
    "Whole request",
    "Over time",
    "output tokens per second",
    "requests under way",
  ]);
  const sections = [...document.querySelectorAll("section")];
  assert.deepEqual(sections.map((s) => s.querySelectorAll("svg[role=img]").length), [4, 3]);
  for (const svg of document.querySelectorAll("svg[role=img]")) {
    assert.ok(svg.getAttribute("aria-label"));
    assert.ok(
      [...svg.querySelectorAll("path")].some((p) => (p.getAttribute("d")?.length ?? 0) > 20),
      "it has data",
    );
  }
  for (const s of sections) assert.ok(s.querySelectorAll("table tbody tr").length > 0);
  assert.match(document.querySelector("table")!.textContent, /closed loop, 4 at once/);
  assert.equal(document.documentElement.getAttribute("lang"), "en");
});

Deno.test("a sweep's page marks the knee, a comparison's has both sides and their ratios", async () => {
  const sweep = await documentOf(result({ sweep: SWEEP }));
  const [first] = sweep.querySelectorAll("section");
  assert.match(first.querySelector("p")!.textContent, /Knee at rate 2\./);
  assert.equal(first.querySelectorAll("svg[role=img]").length, 4);
  const texts = [...first.querySelectorAll("svg text")].map((t) => t.textContent);
  assert.ok(texts.includes("knee") && !texts.some((t) => /e[+-]\d/.test(t)), `${texts}`);
  assert.deepEqual(
    [...first.querySelectorAll("tbody tr")].map((tr) => tr.querySelectorAll("td")[0].textContent),
    ["yes", "knee", "no"],
  );
  const sides = {
    a: { name: "compressed", ...SWEEP },
    b: { name: "dense", ...SWEEP, knee: 1 },
    ratios: [{ value: 1, ratios: comparison().ratios }],
  };
  const two = result({ sweeps: sides, compare: comparison() });
  const [both] = (await documentOf(two)).querySelectorAll("section");
  assert.equal(both.querySelectorAll("svg[role=img]").length, 4);
  assert.equal(both.querySelectorAll("tbody tr").length, 6);
  assert.match(both.querySelector("svg[role=img]")!.getAttribute("aria-label")!, /knee A compressed at 2/);
  assert.match(loadLines(two).join("\n"), /^A 2 +knee [^]*^B 1 +knee [^]*^A \/ B at[^]*^1 +\d/m);
  const compared = await documentOf(result({ compare: comparison() }));
  assert.equal(titles(compared)[0], "Comparison");
  assert.ok(
    titles(compared).includes("Over time: A compressed") && titles(compared).includes("Over time: B dense"),
  );
  const row = [...compared.querySelectorAll("section tbody tr")].find((tr) =>
    /^tpot p50/.test(tr.textContent.trim())
  )!;
  assert.ok(Math.abs(Number(row.querySelectorAll("td")[2].textContent) - 0.5) < 0.01);
});

Deno.test("a load's page needs no network, runs no script, and shows names as text", async () => {
  const text = await loadReportHtml(result({
    model: ATTACK,
    prompts: ATTACK,
    warnings: [ATTACK],
    compare: comparison(ATTACK),
    sweep: SWEEP,
  }));
  const { document } = parseHTML(text);
  assert.equal(document.querySelectorAll("script, img, iframe, link").length, 0);
  assert.doesNotMatch(text.replaceAll(/="[^"]*"/g, ""), /<script|<img/i);
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      assert.doesNotMatch(name, /^(on|src$|href$)/, element.tagName);
      if (name === "style") assert.doesNotMatch(value, /url\(/);
    }
  }
  assert.match(text, /Content-Security-Policy" content="default-src/);
});

Deno.test("a page can be made of a load that measured nothing", async () => {
  const none = new LoadRecord(0, {}).summary();
  const document = await documentOf(result({ ...none, warnings: ["Ended early"] }));
  assert.deepEqual(titles(document), []);
  assert.match(document.body.textContent, /Ended early/);
});

Deno.test("the lines for people say what the page says", () => {
  const one = loadLines(result({
    self_check: {
      requests: 5,
      errors: 0,
      output_tokens_per_second: 9,
      added_ttft_ms: summary(1).ttft_ms,
      added_tpot_ms: 0.5,
      schedule_lag_ms: null,
      cpu_share: 0.2,
      cpu_us_per_request: 1500,
      cpu_us_per_token: 50,
      warnings: [],
    },
  })).join("\n");
  for (
    const part of [
      /^requests +40 in 4/m,
      /^tpot +10\.\d+ /m,
      /within ttft 60 ms/,
      /self-check +5 requests.*20\.0 % of a core: 1\.50 ms/,
    ]
  ) {
    assert.match(one, part);
  }
  assert.match(loadLines(result({ sweep: SWEEP })).join("\n"), /^2 +knee [^]*Knee at rate 2$/m);
  assert.match(loadLines(result({ compare: comparison() })).join("\n"), /^tpot p50, ms .* 0\.50\d* /m);
});
