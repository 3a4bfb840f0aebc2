/** The same load at rising rates or concurrencies, given or doubled, and its knee. */
import { holds, knee } from "./knee.ts";
import { type LoadOptions, type LoadPlan, type LoadSummary, runLoad } from "./load.ts";
import type { Sweep, SweepKind } from "./sweep_kinds.ts";

export interface SweepResult {
  readonly kind: SweepKind;
  /** By load, rising. */
  readonly points: readonly SweepPoint[];
  /** The highest load that holds; null when the lowest does not. */
  readonly knee: number | null;
}
export interface SweepPoint extends LoadSummary {
  readonly value: number;
  readonly holds: boolean;
}

/** Doublings; then looks between the last two. */
const MOST_DOUBLINGS = 12;
const REFINEMENTS = 2;

/** @param planOf the plan at a load; `index` counts them, since prompts of another load may be in the server's cache */
export async function runSweep(
  sweep: Sweep,
  planOf: (value: number, index: number) => LoadPlan,
  options: LoadOptions & { readonly onPoint?: (value: number) => void } = {},
): Promise<SweepResult> {
  const found = new Map<number, LoadSummary>();
  for (let next = nextOf(sweep, found); next !== null && !options.signal?.aborted;) {
    options.onPoint?.(next);
    found.set(next, await runLoad(planOf(next, found.size), options));
    next = nextOf(sweep, found);
  }
  return sweepResult(sweep.kind, found);
}

type Found = ReadonlyMap<number, LoadSummary>;
const byLoad = (found: Found) => {
  const loads = [...found.keys()].sort((a, b) => a - b);
  return { loads, summaries: loads.map((value) => found.get(value)!) };
};

/** @param found by load, in any order */
export function sweepResult(kind: SweepKind, found: Found): SweepResult {
  const { loads, summaries } = byLoad(found), at = knee(loads, summaries);
  const points = summaries.map((summary, i) => ({
    value: loads[i],
    holds: holds(loads, summaries, i),
    ...summary,
  }));
  return { kind, points, knee: at === null ? null : loads[at] };
}

/** The load to run next; null when all are known that were asked for. */
export function nextOf(sweep: Sweep, found: Found): number | null {
  if (sweep.loads) return sweep.loads.find((value) => !found.has(value)) ?? null;
  if (found.size === 0) return sweep.from;
  const { loads, summaries } = byLoad(found);
  return nextLoad(sweep, loads, knee(loads, summaries));
}

/**
 * Doubles while all loads hold; then takes the middle, by factors, between the last that holds and the first that does not.
 * @param at index of the knee
 * @returns null when nothing is left to be known
 */
export function nextLoad(
  { kind }: Pick<Sweep, "kind">,
  loads: readonly number[],
  at: number | null,
): number | null {
  if (at === null) return null;
  if (at === loads.length - 1) return loads.length > MOST_DOUBLINGS ? null : 2 * loads[at];
  const [low, high] = [loads[at], loads[at + 1]];
  if (high / low <= 2 ** (1 / 2 ** REFINEMENTS) * 1.001) return null;
  const middle = Math.sqrt(low * high);
  const value = kind === "concurrency" ? Math.round(middle) : Number(middle.toPrecision(3));
  return value > low && value < high ? value : null;
}
