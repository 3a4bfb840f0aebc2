/** Charts of a load's result, each with the table of what it shows. */
import type { ComparisonResult } from "../../bench/load/compare.ts";
import type { LoadSummary } from "../../bench/load/load.ts";
import type { LatencyName } from "../../bench/load/record.ts";
import { type LoadResult, medianRound } from "../../bench/load/result.ts";
import type { SweepPoint, SweepResult } from "../../bench/load/sweep.ts";
import { COMPARISON_HEAD, comparisonRows, kneeName, sweepHead, sweepRows } from "../bench_load_table.ts";
import type { Cell, Section } from "./page.ts";
import { chart, dot, line, lineY, link, ruleX, ruleY, text } from "./plot.ts";

const WIDE = 860, HALF = 420, HEIGHT = 240;
/** Readable on white and on black. */
const COLORS = ["#4269d0", "#e08700", "#3ca951", "#a463f2"];

export function loadSections(result: LoadResult): Section[] {
  const { sweep, sweeps, compare } = result;
  const runs = compare
    ? [run(`A ${compare.a.name}`, compare.a.blocks), run(`B ${compare.b.name}`, compare.b.blocks)].filter((
      r,
    ) => r !== null)
    : [{ name: result.model, summary: result }];
  const sides = sweep
    ? [{ name: "", sweep }]
    : sweeps
    ? [{ name: `A ${sweeps.a.name}`, sweep: sweeps.a }, { name: `B ${sweeps.b.name}`, sweep: sweeps.b }]
    : null;
  const all = [sides && sweepSection(sides), compare?.ratios && comparison(result, compare), latencies(runs)];
  return [...all, ...runs.map((r) => overTime(r, runs.length > 1))].filter((s) =>
    s !== null && s !== undefined
  );
}

interface Run {
  readonly name: string;
  readonly summary: LoadSummary;
}
const run = (name: string, blocks: readonly LoadSummary[]): Run | null =>
  blocks.length > 0 ? { name, summary: medianRound(blocks) } : null;

const LATENCY: Record<LatencyName, string> = {
  ttft_ms: "Time to first token",
  tpot_ms: "Time per output token",
  itl_ms: "Between pieces of the stream",
  e2e_ms: "Whole request",
};
const NAMES = Object.keys(LATENCY) as LatencyName[];

/** Pieces that came in one delivery are 0 apart: they stand at the left border. */
const LEAST_MS = 0.01;

/** Cumulative distributions, on a logarithmic axis since the tail is what matters. */
function latencies(runs: readonly Run[]): Section | null {
  const charts = NAMES.flatMap((name) => {
    const points = runs.flatMap((r) =>
      r.summary.distribution[name].map(([percent, ms]) => ({
        run: r.name,
        percent,
        ms: Math.max(ms, LEAST_MS),
      }))
    );
    return points.length > 0 ? [distribution(LATENCY[name], points, runs)] : [];
  });
  if (charts.length === 0) return null;
  const quantiles = ["mean", "p50", "p90", "p95", "p99", "p99_9", "max"] as const;
  return {
    title: "Latency",
    about: `Share of requests (of gaps, between pieces) that took no longer.${
      runs[0].summary.corrected ? " Counted from when a request was due, also where it was sent later." : ""
    }${runs.length > 1 ? " Of each side's round of median throughput." : ""}`,
    charts,
    head: ["ms", ...quantiles.map((q) => q.replace("_", "."))],
    rows: runs.flatMap((r) =>
      NAMES.map((name): Cell[] => [
        runs.length > 1 ? `${LATENCY[name]}, ${r.name}` : LATENCY[name],
        ...quantiles.map((q) => r.summary[name]?.[q] ?? null),
      ])
    ),
  };
}

function distribution(
  title: string,
  points: readonly { readonly run: string; readonly percent: number; readonly ms: number }[],
  runs: readonly Run[],
): string {
  return chart(`${title}: cumulative distribution`, {
    title,
    width: HALF,
    height: HEIGHT,
    x: { type: "log", label: "ms", grid: true, ticks: 5, tickFormat: "~g" },
    y: { label: "%", domain: [0, 100], grid: true },
    color: { legend: runs.length > 1, domain: runs.map((r) => r.name), range: COLORS },
    marks: [line(points, { x: "ms", y: "percent", stroke: "run", z: "run" })],
  });
}

/** Throughput, requests under way and latency by time. */
function overTime({ name, summary: { series, warmup_requests } }: Run, named: boolean): Section | null {
  if (series.length === 0) return null;
  const latency = series.flatMap(({ second, ttft_ms, e2e_ms }) =>
    ([["ttft p50", ttft_ms?.p50], ["ttft p99", ttft_ms?.p99], ["e2e p50", e2e_ms?.p50], [
      "e2e p99",
      e2e_ms?.p99,
    ]] as const)
      .map(([what, ms]) => ({ second, what, ms }))
  ).filter((p) => p.ms !== undefined);
  const title = named ? `Over time: ${name}` : "Over time";
  return {
    title,
    about:
      `From the end of the warm-up (${warmup_requests} requests). Latencies of the requests that ended then.`,
    charts: [
      timeChart(
        `${title}: output tokens per second`,
        "tokens/s",
        series.map((p) => [p.second, p.output_tokens_per_second]),
      ),
      timeChart(`${title}: requests under way`, "requests", series.map((p) => [p.second, p.in_flight])),
      ...latency.length > 0
        ? [chart(`${title}: latency`, {
          width: WIDE,
          height: HEIGHT,
          x: { label: "second" },
          y: { type: "log", label: "ms", grid: true, tickFormat: "~g" },
          color: {
            legend: true,
            domain: ["ttft p50", "ttft p99", "e2e p50", "e2e p99"],
            scheme: "Observable10",
          },
          marks: [
            lineY(latency, { x: "second", y: "ms", stroke: "what", z: "what" }),
            dot(latency, { x: "second", y: "ms", fill: "what", r: 1.5 }),
          ],
        })]
        : [],
    ],
    head: [
      "second",
      "output tokens/s",
      "requests/s",
      "under way",
      "errors",
      "ttft p50",
      "ttft p99",
      "e2e p50",
      "e2e p99",
    ],
    rows: series.map((p) => [
      String(p.second),
      p.output_tokens_per_second,
      p.requests_per_second,
      p.in_flight,
      p.errors,
      p.ttft_ms?.p50 ?? null,
      p.ttft_ms?.p99 ?? null,
      p.e2e_ms?.p50 ?? null,
      p.e2e_ms?.p99 ?? null,
    ]),
  };
}

function timeChart(
  label: string,
  unit: string,
  points: readonly (readonly [second: number, value: number])[],
): string {
  return chart(label, {
    title: label.replace(/^.*: /, ""),
    width: HALF,
    height: HEIGHT,
    x: { label: "second" },
    y: { label: unit, grid: true, zero: true },
    marks: [lineY(points, { x: "0", y: "1", stroke: COLORS[0] }), ruleY([0])],
  });
}

/** A sweep, or two side by side. */
interface SweepSide {
  /** Empty of a single one. */
  readonly name: string;
  readonly sweep: SweepResult;
}
type SweepLines = Readonly<Record<string, (p: SweepPoint) => number | undefined>>;

function sweepSection(sides: readonly SweepSide[]): Section {
  const [{ sweep: { kind } }] = sides;
  const charts: readonly (readonly [label: string, unit: string, lines: SweepLines])[] = [
    ["Output tokens per second", "tokens/s", { "tokens/s": (p) => p.output_tokens_per_second }],
    ["Goodput", "requests/s", { answered: (p) => p.requests_per_second, goodput: (p) => p.goodput }],
    ["Time to first token", "ms", { p50: (p) => p.ttft_ms?.p50, p99: (p) => p.ttft_ms?.p99 }],
    ["Time per output token", "ms", { p50: (p) => p.tpot_ms?.p50, p99: (p) => p.tpot_ms?.p99 }],
  ];
  const knees = sides.map(({ name, sweep }) => `${name ? `${name}: ` : ""}${kneeName(sweep)}.`).join(" ");
  return {
    title: "Sweep",
    about: `${knees} The knee is the highest ${kind} that holds: ${HOLDS}`,
    charts: charts.map(([label, unit, lines]) => sweepChart(sides, { label, unit, lines })),
    head: sweepHead(kind),
    rows: sides.flatMap(({ name, sweep }) => sweepRows(sweep, name && `${name} `)),
  };
}

function sweepChart(
  sides: readonly SweepSide[],
  { label, unit, lines }: { readonly label: string; readonly unit: string; readonly lines: SweepLines },
): string {
  const [{ sweep: { kind, points } }] = sides;
  const drawn = sides.flatMap(({ name, sweep }) =>
    Object.entries(lines).map(([line, of]) => ({ line: name ? `${name}, ${line}` : line, of, sweep }))
  );
  const data = drawn.flatMap(({ line, of, sweep }) =>
    sweep.points.flatMap((p) => {
      const value = of(p);
      return value !== undefined && value > 0 ? [{ load: p.value, line, value }] : [];
    })
  );
  const knees = sides.flatMap(({ name, sweep: { knee } }) =>
    knee === null ? [] : [{ knee, name, text: `knee ${name.slice(0, 1)}`.trim() }]
  );
  return chart(
    `${label} by ${kind}${knees.map((k) => `, knee ${k.name} at ${k.knee}`.replace("  ", " ")).join("")}`,
    {
      title: label,
      width: HALF,
      height: HEIGHT,
      x: { type: "log", label: kind, ticks: points.map((p) => p.value), tickFormat: "~g" },
      y: { label: unit, grid: true, ...unit === "ms" ? { type: "log", tickFormat: "~g" } : { zero: true } },
      color: { legend: drawn.length > 1, domain: drawn.map(({ line }) => line), range: COLORS },
      marks: [
        ruleX(knees, { x: "knee", strokeDasharray: "4 3" }),
        ...knees.map((k, i) =>
          text([k], { x: "knee", frameAnchor: "top", text: "text", textAnchor: "end", dx: -4, dy: 12 * i })
        ),
        lineY(data, { x: "load", y: "value", stroke: "line", z: "line" }),
        dot(data, { x: "load", y: "value", fill: "line" }),
      ],
    },
  );
}
const HOLDS =
  "95 % of the requests meet the service levels; without levels, answers keep pace with the rate, or throughput still rises with the concurrency.";

function comparison(result: LoadResult, { a, b }: ComparisonResult): Section {
  const rows = comparisonRows(result);
  const points = rows.map(([figure, , , ratio, least, most]) => ({ figure, ratio, least, most }))
    .filter((p): p is { figure: string; ratio: number; least: number; most: number } => p.ratio !== null);
  return {
    title: "Comparison",
    about:
      `A is ${a.name}, B is ${b.name}, in turn. The ratio of A to B within each round: its median, least and greatest.`,
    charts: [chart("Ratios of A to B, with their spread over the rounds", {
      width: WIDE,
      height: 60 + 28 * points.length,
      marginLeft: 150,
      marginRight: 60,
      x: { type: "log", label: "A / B", grid: true, tickFormat: "~g", ticks: 6 },
      y: { label: null, domain: points.map((p) => p.figure) },
      marks: [
        ruleX([1], { strokeDasharray: "4 3" }),
        link(points, {
          x1: "least",
          x2: "most",
          y1: "figure",
          y2: "figure",
          stroke: COLORS[0],
          strokeWidth: 3,
        }),
        dot(points, { x: "ratio", y: "figure", fill: COLORS[0], r: 5 }),
        text(points, { x: "most", y: "figure", text: (p) => p.ratio.toFixed(2), textAnchor: "start", dx: 9 }),
      ],
    })],
    head: COMPARISON_HEAD,
    rows,
  };
}
