/** The result of `bench load` in lines for people. */
import { type ComparedFigure, FIGURES } from "../bench/load/compare.ts";
import type { LatencyStats } from "../bench/load/histogram.ts";
import type { ClosedLoad, LoadSummary, OpenLoad } from "../bench/load/load.ts";
import type { LoadResult } from "../bench/load/result.ts";
import type { SelfCheck } from "../bench/load/self_check.ts";
import type { SweepPoint, SweepResult } from "../bench/load/sweep.ts";
import type { SweepComparison } from "../bench/load/sweep_compare.ts";
import type { SweepKind } from "../bench/load/sweep_kinds.ts";
import { median } from "../bench/spread.ts";
import { table } from "./output.ts";
import type { Cell } from "./report/page.ts";

export function loadLines(result: LoadResult): string[] {
  const { url, model, endpoint, prompts, seed, sweep, sweeps, compare, self_check } = result;
  const lines = [`${url}, ${endpoint} of ${compare ? `${compare.a.name} and ${compare.b.name}` : model}`];
  lines.push(`prompts: ${prompts}; seed ${seed}`, "");
  if (sweep) lines.push(...sweepLines(sweep), "");
  if (sweeps) lines.push(...sweepsLines(sweeps), "");
  if (compare) lines.push(...compareLines(result));
  else lines.push(...summaryLines(result));
  if (self_check) lines.push("", ...selfCheckLines(result));
  const warnings = compare
    ? [...compare.a.blocks, ...compare.b.blocks].flatMap((b) => b.warnings)
    : result.warnings;
  return [...lines, ...[...new Set(warnings)].map((text) => `Note: ${text}`)];
}

export function loadName(load: OpenLoad | ClosedLoad): string {
  if (load.kind === "closed") return `closed loop, ${load.concurrency} at once`;
  const { kind, rate, burstiness, ramp } = load.arrivals;
  const more =
    { poisson: "", constant: "", burst: ` (burstiness ${burstiness})`, ramp: ` from ${ramp.from}` }[kind];
  return `open loop, ${kind}${more}, ${rate} requests/s`;
}

const percent = (share: number | null): string => share === null ? "-" : `${(100 * share).toFixed(1)} %`;
const figure = (n: number): string => n >= 100 ? n.toFixed(0) : n.toPrecision(3);

function summaryLines(s: LoadSummary): string[] {
  const errors = Object.entries(s.errors_by_kind).map(([kind, { count }]) => `${count} ${kind}`).join(", ");
  const levels = Object.entries(s.slo).map(([kind, ms]) => `${kind} ${ms} ms`).join(", ");
  return [
    loadName(s.load),
    `requests    ${s.requests} in ${s.duration_s.toFixed(1)} s, ${s.errors} errors${
      errors ? ` (${errors})` : ""
    }`,
    `throughput  ${figure(s.requests_per_second)} requests/s, ${
      figure(s.output_tokens_per_second)
    } output tokens/s ` +
    `(best second ${figure(s.peak_output_tokens_per_second)}), ${
      figure(s.input_tokens_per_second)
    } input tokens/s${cachedShare(s)}`,
    `goodput     ${figure(s.goodput)} requests/s` +
    (levels ? `, ${percent(s.slo_attainment)} within ${levels}` : ""),
    `under way   ${figure(s.in_flight_mean)} at the mean, ${s.max_in_flight} at most`,
    "",
    ...latencyTable(s),
    ...clientLines(s),
  ];
}

function cachedShare({ cached_input_tokens, input_tokens }: LoadSummary): string {
  return cached_input_tokens > 0 ? ` (${percent(cached_input_tokens / input_tokens)} from its cache)` : "";
}

const QUANTILES = ["mean", "p50", "p90", "p95", "p99", "p99_9", "max"] as const;

function latencyTable(s: LoadSummary): string[] {
  const row = (
    name: string,
    stats: LatencyStats | null,
  ) => [name, ...QUANTILES.map((q) => stats?.[q] ?? null)];
  const uncorrected = [
    row("ttft from sending", s.from_send.ttft_ms),
    row("e2e from sending", s.from_send.e2e_ms),
  ];
  return table([
    ["ms", ...QUANTILES.map((q) => q.replace("_", "."))],
    row("ttft", s.ttft_ms),
    row("tpot", s.tpot_ms),
    row("itl", s.itl_ms),
    row("e2e", s.e2e_ms),
    ...s.corrected ? uncorrected : [],
  ]);
}

function clientLines({ client: { cpu_share, schedule_lag_ms: lag } }: LoadSummary): string[] {
  const parts = [
    ...cpu_share === null ? [] : [`${percent(cpu_share)} of a core`],
    ...lag ? [`sent ${lag.p50.toFixed(2)} ms late at the median, ${lag.p99.toFixed(2)} ms at p99`] : [],
  ];
  return parts.length > 0 ? ["", `client      ${parts.join(", ")}`] : [];
}

/** A sweep's tables: what a column is called, and what stands in it for a load. */
const SWEEP_COLUMNS: readonly (readonly [string, (p: SweepPoint, knee: number | null) => Cell])[] = [
  ["holds", (p, knee) => p.value === knee ? "knee" : p.holds ? "yes" : "no"],
  ["requests/s", (p) => p.requests_per_second],
  ["goodput", (p) => p.goodput],
  ["output tokens/s", (p) => p.output_tokens_per_second],
  ["ttft p50", (p) => p.ttft_ms?.p50 ?? null],
  ["ttft p99", (p) => p.ttft_ms?.p99 ?? null],
  ["tpot p50", (p) => p.tpot_ms?.p50 ?? null],
  ["e2e p99", (p) => p.e2e_ms?.p99 ?? null],
  ["errors", (p) => p.errors],
  ["slo met", (p) => percent(p.slo_attainment)],
];
export const sweepHead = (kind: SweepKind): string[] => [kind, ...SWEEP_COLUMNS.map(([name]) => name)];
/** @param name before the load, where there are two sides */
export const sweepRows = ({ points, knee }: SweepResult, name = ""): Cell[][] =>
  points.map((p) => [`${name}${p.value}`, ...SWEEP_COLUMNS.map(([, of]) => of(p, knee))]);

export function kneeName({ kind, points, knee }: SweepResult): string {
  if (knee === null) return `No knee: ${kind} ${points[0].value} is too much already`;
  return `Knee at ${kind} ${knee}${knee === points.at(-1)!.value ? ", the highest that was tried" : ""}`;
}

const sweepLines = (sweep: SweepResult): string[] => [
  ...table([sweepHead(sweep.kind), ...sweepRows(sweep)]),
  kneeName(sweep),
];

function sweepsLines({ a, b, ratios }: SweepComparison): string[] {
  const cells = (summary: SweepComparison["ratios"][number]["ratios"]): Cell[] =>
    COMPARED.map((key) => summary?.median[key] ?? null);
  return [
    ...table([sweepHead(a.kind), ...sweepRows(a, "A "), ...sweepRows(b, "B ")]),
    `A: ${kneeName(a)}. B: ${kneeName(b)}`,
    "",
    ...table([
      ["A / B at", ...COMPARED.map((key) => FIGURES[key][0])],
      ...ratios.map((at) => [String(at.value), ...cells(at.ratios)]),
    ]),
  ];
}
const COMPARED = [
  "output_tokens_per_second",
  "ttft_p50_ms",
  "ttft_p99_ms",
  "tpot_p50_ms",
  "e2e_p50_ms",
] as const;

/** A's and B's median over the rounds, and the median of the rounds' ratios with the least and the greatest. */
export function comparisonRows({ compare }: LoadResult): (readonly (string | number | null)[])[] {
  const { a, b, ratios } = compare!;
  const middle = (blocks: readonly LoadSummary[], of: (s: LoadSummary) => number | undefined) => {
    const values = blocks.map(of).filter((v) => v !== undefined);
    return values.length > 0 ? median(values) : null;
  };
  return (Object.keys(FIGURES) as ComparedFigure[]).map((key) => {
    const [name, of] = FIGURES[key];
    const ratio = ratios?.median[key], spread = ratios?.spread[key];
    return [
      name,
      middle(a.blocks, of),
      middle(b.blocks, of),
      ratio ?? null,
      spread?.min ?? null,
      spread?.max ?? null,
    ];
  });
}
export const COMPARISON_HEAD = ["", "A", "B", "A / B", "least", "most"] as const;

function compareLines(result: LoadResult): string[] {
  const { a, b } = result.compare!;
  return [
    loadName(result.load),
    `A is ${a.name}, B is ${b.name}: in turn, ${b.blocks.length} rounds; ratios within a round`,
    "",
    ...table([[...COMPARISON_HEAD], ...comparisonRows(result)]),
  ];
}

function clientCpu({ cpu_share, cpu_us_per_request, cpu_us_per_token }: SelfCheck): string[] {
  if (cpu_share === null || cpu_us_per_request === null) return [];
  const perRequest = `${(cpu_us_per_request / 1000).toFixed(2)} ms of processor time a request`;
  const perToken = cpu_us_per_token === null ? "" : `, ${cpu_us_per_token.toFixed(0)} µs a token`;
  return [`${percent(cpu_share)} of a core: ${perRequest}${perToken}`];
}

function selfCheckLines({ self_check }: LoadResult): string[] {
  const { added_ttft_ms, added_tpot_ms, schedule_lag_ms, requests, warnings } = self_check!;
  const parts = [
    ...added_ttft_ms
      ? [`ttft +${added_ttft_ms.p50.toFixed(2)} ms (p99 +${added_ttft_ms.p99.toFixed(2)})`]
      : [],
    ...added_tpot_ms === null ? [] : [`tpot +${added_tpot_ms.toFixed(3)} ms`],
    ...schedule_lag_ms ? [`sent ${schedule_lag_ms.p99.toFixed(2)} ms late at p99`] : [],
    ...clientCpu(self_check!),
  ];
  return [
    `self-check  ${requests} requests to a stub that answers at once: ${parts.join(", ")}`,
    ...warnings.map((text) => `            ${text}`),
  ];
}
