/** Where more load stops to pay. Pure. */
import type { LoadSummary } from "./load.ts";

/** What the judgement needs of one load of a sweep. */
export type Judged = Pick<
  LoadSummary,
  | "requests"
  | "succeeded"
  | "slo"
  | "slo_attainment"
  | "duration_s"
  | "interrupted"
  | "offered_per_second"
  | "output_tokens_per_second"
>;

/** Share of requests that must meet the service levels; without levels, that must succeed. */
export const LEAST_ATTAINMENT = 0.95;
/** Of the best pace of the lower loads, and of the lowest load's own. */
export const LEAST_PACE = { ofBest: 0.9, first: 0.5 };
/** Of a closed loop's load that grows by x, the throughput must grow by this share of x: a doubling must give 10 % more. */
export const LEAST_RISE = 0.1;

/**
 * A load holds when it was run to its end, at most 5 % of its requests failed, and
 * - with service levels: 95 % of the requests meet all of them;
 * - without, a rate: answers keep pace with what is due, as well as at lower rates but for a tenth;
 * - without, a concurrency: throughput still rises over the load before, by a tenth of the load's growth.
 * @param loads rate or concurrency of each summary, rising
 */
export function holds(loads: readonly number[], summaries: readonly Judged[], index: number): boolean {
  const summary = summaries[index], { requests, succeeded, slo_attainment, offered_per_second } = summary;
  if (summary.interrupted || requests === 0 || succeeded < LEAST_ATTAINMENT * requests) return false;
  if (hasLevels(summary)) return slo_attainment! >= LEAST_ATTAINMENT;
  if (offered_per_second !== null) return keepsPace(summaries, index);
  return index === 0 || rises(loads, summaries, index);
}

const hasLevels = ({ slo }: Judged): boolean => Object.keys(slo).length > 0;

/**
 * Answers a second over requests due a second. It is below 1 also where nothing waits, because the last answer comes after
 * the last request; that share is alike at all loads, so each is held against the best of the lower ones.
 */
const pace = ({ succeeded, duration_s, offered_per_second }: Judged): number =>
  succeeded / duration_s / Math.max(1e-9, offered_per_second!);

function keepsPace(summaries: readonly Judged[], index: number): boolean {
  const now = pace(summaries[index]), lower = summaries.slice(0, index).map(pace);
  return lower.length === 0 ? now >= LEAST_PACE.first : now >= LEAST_PACE.ofBest * Math.max(...lower);
}

function rises(loads: readonly number[], summaries: readonly Judged[], index: number): boolean {
  const [before, now] = [summaries[index - 1], summaries[index]].map((s) => s.output_tokens_per_second);
  return now >= before * (1 + LEAST_RISE * (loads[index] / loads[index - 1] - 1));
}

/** @returns index of the highest load that holds, all lower ones holding too; null when the lowest does not */
export function knee(loads: readonly number[], summaries: readonly Judged[]): number | null {
  const first = summaries.findIndex((_, i) => !holds(loads, summaries, i));
  const last = (first === -1 ? summaries.length : first) - 1;
  return last < 0 ? null : last;
}
