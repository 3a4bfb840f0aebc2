/** Two models or servers under the same load in turn, A B A B, and the ratios of what stood side by side. */
import { ratios, type Summary } from "../figures.ts";
import { type LoadOptions, type LoadPlan, type LoadSummary, runLoad } from "./load.ts";

type Figure = readonly [label: string, of: (summary: LoadSummary) => number | undefined];

/** What is compared, each a positive number; one that a round lacks has no ratio. */
export const FIGURES = {
  output_tokens_per_second: ["output tokens/s", (s) => s.output_tokens_per_second],
  requests_per_second: ["requests/s", (s) => s.requests_per_second],
  goodput: ["goodput, requests/s", (s) => s.goodput],
  ttft_p50_ms: ["ttft p50, ms", (s) => s.ttft_ms?.p50],
  ttft_p99_ms: ["ttft p99, ms", (s) => s.ttft_ms?.p99],
  tpot_p50_ms: ["tpot p50, ms", (s) => s.tpot_ms?.p50],
  itl_p99_ms: ["itl p99, ms", (s) => s.itl_ms?.p99],
  e2e_p50_ms: ["e2e p50, ms", (s) => s.e2e_ms?.p50],
  e2e_p99_ms: ["e2e p99, ms", (s) => s.e2e_ms?.p99],
} as const satisfies Record<string, Figure>;
export type ComparedFigure = keyof typeof FIGURES;
const figureOf = (name: ComparedFigure, summary: LoadSummary) => FIGURES[name][1](summary);

export interface Compared {
  readonly name: string;
  readonly blocks: readonly LoadSummary[];
}
export interface ComparisonResult {
  readonly a: Compared;
  readonly b: Compared;
  /** A's figure over B's of the same round: median and spread over the rounds; null before the first round is whole. */
  readonly ratios: Summary<ComparedFigure> | null;
}
/**
 * @returns the plan of a round; both sides should have the same prompts and arrivals in it, unless both are one model on one
 * server, which would have them in its cache
 */
export type SidePlan = (round: number) => LoadPlan;

export async function runComparison(
  sides: readonly [a: { name: string; plan: SidePlan }, b: { name: string; plan: SidePlan }],
  rounds: number,
  options: LoadOptions & { readonly onBlock?: (name: string, round: number) => void } = {},
): Promise<ComparisonResult> {
  const blocks: [LoadSummary[], LoadSummary[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (const [i, { name, plan }] of sides.entries()) {
      if (options.signal?.aborted) break;
      options.onBlock?.(name, round);
      blocks[i].push(await runLoad(plan(round), options));
    }
  }
  const [a, b] = sides.map(({ name }, i) => ({ name, blocks: blocks[i] }));
  return { a, b, ratios: pairedRatios(blocks[0], blocks[1]) };
}

/** Of rounds that both sides ran to their end. */
export function pairedRatios(
  a: readonly LoadSummary[],
  b: readonly LoadSummary[],
): Summary<ComparedFigure> | null {
  const pairs = b.map((_, i) => [a[i], b[i]] as const).filter((pair) => pair.every((s) => !s.interrupted));
  if (pairs.length === 0) return null;
  const names = (Object.keys(FIGURES) as ComparedFigure[]).filter((name) =>
    pairs.flat().every((s) => (figureOf(name, s) ?? 0) > 0)
  );
  const figures = (side: 0 | 1) =>
    pairs.map((pair) =>
      Object.fromEntries(names.map((name) => [name, figureOf(name, pair[side])!])) as Record<
        ComparedFigure,
        number
      >
    );
  return names.length === 0 ? null : ratios(figures(0), figures(1));
}
