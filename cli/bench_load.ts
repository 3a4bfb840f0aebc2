/** `bench load`: options to plans, plans to a result, the result printed and drawn. */
import { dirname } from "node:path";
import process from "node:process";
import project from "../deno.json" with { type: "json" };
import type { ArrivalKind } from "../bench/load/arrivals.ts";
import { apiUrl, type Endpoint, type Target } from "../bench/load/client.ts";
import { runComparison } from "../bench/load/compare.ts";
import { type DatasetRow, readDataset } from "../bench/load/dataset.ts";
import type { Lengths } from "../bench/load/lengths.ts";
import {
  type ClosedLoad,
  type LoadLimit,
  type LoadOptions,
  type LoadPlan,
  type LoadProgress,
  type OpenLoad,
  runLoad,
} from "../bench/load/load.ts";
import { loadPlan, type LoadSpec, openTarget } from "../bench/load/plan.ts";
import { checkAllowed } from "../bench/load/probe.ts";
import type { SharedPrefix } from "../bench/load/prompts.ts";
import { kneeOf, type LoadResult, type LoadSetting, medianRound } from "../bench/load/result.ts";
import { selfCheck } from "../bench/load/self_check.ts";
import type { Slo } from "../bench/load/slo.ts";
import { runSweep } from "../bench/load/sweep.ts";
import { runSweepComparison, type SweepComparisonOptions } from "../bench/load/sweep_compare.ts";
import type { Sweep } from "../bench/load/sweep_kinds.ts";
import { loadLines } from "./bench_load_table.ts";
import type { Warmup } from "./commands/bench_load.ts";
import { LinesFile } from "./lines_file.ts";
import { note, printResult, ProgressBar } from "./output.ts";

export interface BenchLoadOptions {
  readonly url: string;
  readonly model?: string;
  readonly endpoint?: Endpoint;
  readonly apiKey?: string;
  readonly rate?: number;
  readonly arrivals: ArrivalKind;
  readonly burstiness: number;
  readonly rampFrom?: number;
  readonly maxInFlight: number;
  readonly concurrency?: number;
  readonly requests?: number;
  /** Milliseconds. */
  readonly duration?: number;
  readonly warmup: Warmup;
  readonly dataset?: string;
  readonly inputTokens?: Lengths;
  readonly outputTokens?: Lengths;
  readonly sharedPrefix?: SharedPrefix;
  readonly ignoreEos?: boolean;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly seed: number;
  /** Milliseconds. */
  readonly timeout: number;
  readonly slo: Slo;
  readonly sweep?: Sweep;
  readonly compare?: readonly string[];
  readonly blocks: number;
  readonly selfCheck?: boolean;
  readonly report?: string;
  readonly saveRequests?: string;
  readonly json?: boolean;
}

const DEFAULT_REQUESTS = 100;
const DEFAULT_INPUT = "128";
const DEFAULT_OUTPUT = "64";

/** @throws {OatmillError} unavailable, invalid_request: before the load; what fails in it is counted */
export async function benchLoadCommand(options: BenchLoadOptions): Promise<void> {
  const abort = new AbortController(), { signal } = abort;
  const stop = () => {
    if (signal.aborted) Deno.exit(130); // the second time: at once
    note("\nEnding; the report has what was measured.");
    abort.abort();
  };
  Deno.addSignalListener("SIGINT", stop);
  try {
    if (options.report) await Deno.stat(dirname(options.report)); // said before the load, not after it
    const rows = options.dataset ? await readDataset(options.dataset) : null;
    const sides = await Promise.all(
      (options.compare ?? [null]).map((side) => openSide(side, { rows, options, signal })),
    );
    using requests = options.saveRequests ? new LinesFile(options.saveRequests) : null;
    const result = await measure(sides, options, { signal, save: (row) => requests?.write(row) });
    printResult(result, { json: options.json, lines: () => loadLines(result) });
    if (options.report) {
      const { loadReportHtml } = await import("./report/load_report.ts");
      await Deno.writeTextFile(options.report, await loadReportHtml(result));
    }
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}

/** One model on one server, and the plan of a load on it. */
interface Side {
  readonly name: string;
  readonly target: Target;
  /** @param round changes prompts and arrivals, the same way on every side */
  plan(load: OpenLoad | ClosedLoad, round?: number): LoadPlan;
}
interface Opening {
  readonly rows: readonly DatasetRow[] | null;
  readonly options: BenchLoadOptions;
  readonly signal: AbortSignal;
}
/** Between the rounds' seeds, so that neighbouring seeds have no round in common. */
const SEEDS_APART = 1_000_003;

/** @param name a model, a URL, or both as URL#model; null is what the options say */
async function openSide(name: string | null, { rows, options, signal }: Opening): Promise<Side> {
  const { url, model } = address(name, options), baseUrl = apiUrl(url)!;
  await checkAllowed(baseUrl);
  const { endpoint, apiKey, timeout: timeoutMs, ignoreEos } = options;
  const body = { temperature: 0, ...ignoreEos ? { ignore_eos: true } : {}, ...options.body };
  const opened = await openTarget({ baseUrl, endpoint, model, apiKey, body, timeoutMs }, rows, signal);
  if (!opened.counted) note(`${baseUrl} gives no usage: a word is taken for ${opened.scale.perWord} tokens`);
  return {
    name: name ?? opened.target.model,
    target: opened.target,
    plan: (load, round = 0) => loadPlan(opened, specOf(options, load, round), rows),
  };
}

function specOf(options: BenchLoadOptions, load: OpenLoad | ClosedLoad, round: number): LoadSpec {
  const { inputTokens, outputTokens, dataset, sharedPrefix = null, slo } = options;
  return {
    load,
    limit: limitOf(options),
    warmup: warmupOf(options.warmup),
    slo,
    seed: options.seed + SEEDS_APART * round,
    inputTokens: inputTokens?.text ?? DEFAULT_INPUT,
    outputTokens: outputTokens?.text ?? (dataset ? null : DEFAULT_OUTPUT),
    sharedPrefix,
  };
}

function address(name: string | null, { url, model }: BenchLoadOptions): { url: string; model?: string } {
  if (name === null) return { url, model };
  const at = name.indexOf("#"),
    [before, after] = at < 0 ? [name, ""] : [name.slice(0, at), name.slice(at + 1)];
  return apiUrl(before) ? { url: before, model: after || undefined } : { url, model: name };
}

function limitOf({ requests, duration }: BenchLoadOptions): LoadLimit {
  const seconds = duration === undefined ? Infinity : duration / 1000;
  return { requests: requests ?? (duration === undefined ? DEFAULT_REQUESTS : Infinity), seconds };
}
function warmupOf(warmup: Warmup): LoadLimit | null {
  if ("ms" in warmup) return { requests: Infinity, seconds: warmup.ms / 1000 };
  return warmup.requests === 0 ? null : { requests: warmup.requests, seconds: Infinity };
}

/** @param value of the rate or concurrency, in place of the options' own */
function loadOf(options: BenchLoadOptions, value?: number): OpenLoad | ClosedLoad {
  const { arrivals: kind, burstiness, maxInFlight, sweep } = options;
  const rate = value !== undefined && sweep?.kind === "rate" ? value : options.rate;
  if (rate === undefined) return { kind: "closed", concurrency: value ?? options.concurrency ?? 1 };
  const from = options.rampFrom ?? rate / 10, limit = limitOf(options);
  // A ramp takes the whole load: so many requests at the mean of its two rates.
  const seconds = Math.min(limit.seconds, limit.requests / ((from + rate) / 2));
  return { kind: "open", arrivals: { kind, rate, burstiness, ramp: { from, seconds } }, maxInFlight };
}

async function measure(
  sides: readonly Side[],
  options: BenchLoadOptions,
  { signal, save }: { readonly signal: AbortSignal; readonly save: (row: object) => void },
): Promise<LoadResult> {
  const bar = new ProgressBar(), limit = limitOf(options);
  let phase = "load";
  const running: LoadOptions = {
    signal,
    cpuTimeUs,
    onRequest: (row) => save({ phase, ...row }),
    onProgress: (progress) =>
      bar.show({ phase: progress.warmingUp ? "warm-up" : phase, ...steps(progress, limit) }),
  };
  const [side, other] = sides;
  const onBlock = (name: string, i: number) => phase = `${name} ${i + 1}`;
  const found = options.sweep && other
    ? await comparedSweeps([side, other], options, {
      ...running,
      onBlock: (value, name, i) => onBlock(`${options.sweep!.kind} ${value}, ${name}`, i),
    })
    : options.sweep
    ? await swept(side, options, { ...running, onPoint: (v) => phase = `${options.sweep!.kind} ${v}` })
    : other
    ? await compared([side, other], options, { ...running, onBlock })
    : { ...NOTHING_MORE, ...await runLoad(side.plan(loadOf(options)), running) };
  phase = "self-check";
  const plan = { ...side.plan(found.load), limit };
  const self_check = options.selfCheck && !signal.aborted
    ? await selfCheck(plan, found, { ...running, onRequest: undefined })
    : null;
  bar.end();
  return { ...settingOf(side, options), ...found, self_check };
}

const NOTHING_MORE = { sweep: null, sweeps: null, compare: null };
type Found = Omit<LoadResult, keyof LoadSetting | "self_check">;

async function swept(
  side: Side,
  options: BenchLoadOptions,
  running: Parameters<typeof runSweep>[2],
): Promise<Found> {
  const sweep = await runSweep(options.sweep!, (value, i) => side.plan(loadOf(options, value), i), running);
  return { ...kneeOf(sweep), ...NOTHING_MORE, sweep };
}

async function compared(
  sides: readonly [Side, Side],
  options: BenchLoadOptions,
  running: Parameters<typeof runComparison>[2],
): Promise<Found> {
  const compare = await runComparison(sidesAt(sides, options), options.blocks, running);
  return { ...medianRound(compare.a.blocks), ...NOTHING_MORE, compare };
}

async function comparedSweeps(
  sides: readonly [Side, Side],
  options: BenchLoadOptions,
  running: SweepComparisonOptions,
): Promise<Found> {
  const { sweep, blocks } = options;
  const at = (value: number, index: number) => sidesAt(sides, options, { value, index });
  const { sweeps, compare } = await runSweepComparison(sweep!, at, blocks, running);
  return { ...medianRound(compare.a.blocks), ...NOTHING_MORE, sweeps, compare };
}

/** Both sides under the same prompts, but for one model on one server. @param at a load of a sweep */
function sidesAt(
  [a, b]: readonly [Side, Side],
  options: BenchLoadOptions,
  { value, index }: { readonly value?: number; readonly index: number } = { index: 0 },
) {
  const same = a.target.baseUrl === b.target.baseUrl && a.target.model === b.target.model;
  const { blocks } = options, rounds = same ? 2 * blocks : blocks;
  const planned = ({ name, plan }: Side, first: number) => ({
    name,
    plan: (round: number) => plan(loadOf(options, value), first + round),
  });
  const first = index * rounds;
  return [planned(a, first), planned(b, same ? first + blocks : first)] as const;
}

function settingOf({ target }: Side, options: BenchLoadOptions): LoadSetting {
  const { inputTokens, outputTokens, sharedPrefix, dataset, seed } = options;
  const output = outputTokens?.text ?? (dataset ? "the dataset's" : DEFAULT_OUTPUT);
  const parts = [
    dataset ?? `random words, input ${inputTokens?.text ?? DEFAULT_INPUT} tokens`,
    `output ${output} tokens`,
    ...sharedPrefix
      ? [`after one of ${sharedPrefix.groups} shared prefixes of ${sharedPrefix.tokens} tokens`]
      : [],
  ];
  return {
    oatmill: project.version,
    made: new Date().toISOString(),
    url: target.baseUrl,
    model: target.model,
    endpoint: target.endpoint,
    prompts: parts.join(", "),
    seed,
  };
}

/** In requests where they are bounded, else in seconds. */
function steps({ requests, seconds }: LoadProgress, limit: LoadLimit): { done: number; total: number } {
  return Number.isFinite(limit.requests)
    ? { done: requests, total: limit.requests }
    : { done: Math.min(Math.floor(seconds), Math.ceil(limit.seconds)), total: Math.ceil(limit.seconds) };
}

/** Of this whole process. */
function cpuTimeUs(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}
