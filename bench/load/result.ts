/** What one `bench load` found, as its JSON has it. */
import type { ComparisonResult } from "./compare.ts";
import type { LoadSummary } from "./load.ts";
import type { SelfCheck } from "./self_check.ts";
import type { SweepResult } from "./sweep.ts";
import type { SweepComparison } from "./sweep_compare.ts";

/** How it was measured. */
export interface LoadSetting {
  readonly oatmill: string;
  /** ISO 8601. */
  readonly made: string;
  readonly url: string;
  readonly model: string;
  readonly endpoint: string;
  /** Where prompts come from and how long they are. */
  readonly prompts: string;
  readonly seed: number;
}

/**
 * At the top level the one load; of a sweep its knee (or the lowest load), of a comparison A's round of median throughput. Of
 * two models' sweeps `compare` is at the highest load that both hold (or the lowest).
 */
export interface LoadResult extends LoadSetting, LoadSummary {
  readonly sweep: SweepResult | null;
  readonly sweeps: SweepComparison | null;
  readonly compare: ComparisonResult | null;
  readonly self_check: SelfCheck | null;
}

/** @param points at least one */
export function kneeOf({ points, knee }: SweepResult): LoadSummary {
  return points.find((p) => p.value === knee) ?? points[0];
}
/** @param blocks at least one */
export function medianRound(blocks: readonly LoadSummary[]): LoadSummary {
  const sorted = blocks.toSorted((a, b) => a.output_tokens_per_second - b.output_tokens_per_second);
  return sorted[(sorted.length - 1) >> 1];
}
