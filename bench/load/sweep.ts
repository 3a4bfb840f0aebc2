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
  const loads = () => [...found.keys()].sort((a, b) => a - b);
  const summaries = () => loads().map((value) => found.get(value)!);
  const kneeOf = () => knee(loads(), summaries());
  for (let next: number | null = first(sweep); next !== null && !options.signal?.aborted;) {
    options.onPoint?.(next);
    found.set(next, await runLoad(planOf(next, found.size), options));
    next = sweep.loads ? sweep.loads.find((v) => !found.has(v)) ?? null : nextLoad(sweep, loads(), kneeOf());
  }
  const at = kneeOf();
  const points = summaries().map((summary, i) => ({
    value: loads()[i],
    holds: holds(loads(), summaries(), i),
    ...summary,
  }));
  return { kind: sweep.kind, points, knee: at === null ? null : loads()[at] };
}

const first = ({ loads, from }: Sweep): number | null => loads ? loads[0] ?? null : from;

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
