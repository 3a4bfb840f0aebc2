/** Two models or servers at rising loads, in turn at each of them: two curves, two knees, and what stood side by side. */
import type { Summary } from "../figures.ts";
import { type ComparedFigure, type ComparisonResult, runComparison, type SidePlan } from "./compare.ts";
import type { LoadOptions, LoadSummary } from "./load.ts";
import { medianRound } from "./result.ts";
import { nextOf, type SweepResult, sweepResult } from "./sweep.ts";
import type { Sweep } from "./sweep_kinds.ts";

export interface NamedSweep extends SweepResult {
  readonly name: string;
}
export interface SweepComparison {
  /** Each load by the side's round of median throughput. */
  readonly a: NamedSweep;
  readonly b: NamedSweep;
  /** A's figures over B's at each load; null where no round was whole. */
  readonly ratios: readonly { readonly value: number; readonly ratios: Summary<ComparedFigure> | null }[];
}
interface Side {
  readonly name: string;
  readonly plan: SidePlan;
}
export interface SweepComparisonOptions extends LoadOptions {
  readonly onBlock?: (value: number, name: string, round: number) => void;
}

/**
 * With given loads both sides run all of them; doubling goes on until both know their knee.
 * @param sidesAt both at a load; `index` counts loads, whose prompts should differ
 * @returns with the comparison at the highest load that both hold, or else the lowest
 */
export async function runSweepComparison(
  sweep: Sweep,
  sidesAt: (value: number, index: number) => readonly [Side, Side],
  rounds: number,
  { onBlock, ...options }: SweepComparisonOptions = {},
): Promise<{ readonly sweeps: SweepComparison; readonly compare: ComparisonResult }> {
  const found = new Map<number, ComparisonResult>();
  for (let next = nextFor(sweep, found); next !== null && !options.signal?.aborted;) {
    const value: number = next;
    found.set(
      value,
      await runComparison(sidesAt(value, found.size), rounds, {
        ...options,
        onBlock: (name, round) => onBlock?.(value, name, round),
      }),
    );
    next = nextFor(sweep, found);
  }
  const values = [...found.keys()].sort((a, b) => a - b);
  const [a, b] = (["a", "b"] as const).map((side): NamedSweep => ({
    name: found.get(values[0])![side].name,
    ...sweepResult(sweep.kind, summariesOf(found, side)),
  }));
  const both = Math.min(a.knee ?? -Infinity, b.knee ?? -Infinity);
  return {
    sweeps: { a, b, ratios: values.map((value) => ({ value, ratios: found.get(value)!.ratios })) },
    compare: found.get(both) ?? found.get(values[0])!,
  };
}

type Found = ReadonlyMap<number, ComparisonResult>;
/** What either side still wants to know. */
const nextFor = (sweep: Sweep, found: Found): number | null =>
  nextOf(sweep, summariesOf(found, "a")) ?? nextOf(sweep, summariesOf(found, "b"));

const summariesOf = (found: Found, side: "a" | "b"): Map<number, LoadSummary> =>
  new Map(
    [...found].filter(([, compared]) => compared[side].blocks.length > 0)
      .map(([value, compared]) => [value, medianRound(compared[side].blocks)]),
  );
