/** Where more load stops to pay. Pure. */
import type { LoadSummary } from "./load.ts";

/** What the judgement needs of one load of a sweep. */
export type Judged =
  & Pick<
    LoadSummary,
    | "requests"
    | "succeeded"
    | "errors"
    | "slo"
    | "slo_attainment"
    | "duration_s"
    | "interrupted"
    | "offered_per_second"
    | "output_tokens_per_second"
  >
  & { readonly e2e_ms: { readonly p50: number } | null };

/** Share of requests that must meet the service levels; without levels, that must succeed. */
export const LEAST_ATTAINMENT = 0.95;
/** Share of what was due that must have been answered in the time. */
export const LEAST_KEPT_UP = 0.95;
/** Of a closed loop's load that grows by x, the throughput must grow by this share of x: a doubling must give 10 % more. */
export const LEAST_RISE = 0.1;

/**
 * A load holds when it was run to its end, at most 5 % of its requests failed, and
 * - with service levels: 95 % of the requests meet all of them;
 * - without, a rate: 95 % of what was due is answered in the time (the last answer's wait taken off);
 * - without, a concurrency: throughput still rises over the load before, by a tenth of the load's growth.
 * @param loads rate or concurrency of each summary, rising
 */
export function holds(loads: readonly number[], summaries: readonly Judged[], index: number): boolean {
  const summary = summaries[index], { requests, succeeded, slo_attainment, offered_per_second } = summary;
  if (summary.interrupted || requests === 0 || succeeded < LEAST_ATTAINMENT * requests) return false;
  if (hasLevels(summary)) return slo_attainment! >= LEAST_ATTAINMENT;
  if (offered_per_second !== null) return keptUp(summary) >= LEAST_KEPT_UP;
  return index === 0 || rises(loads, summaries, index);
}

const hasLevels = ({ slo }: Judged): boolean => Object.keys(slo).length > 0;

/** Answers a second over what was due: the sending time is the duration without one median wait. */
function keptUp({ succeeded, duration_s, offered_per_second, e2e_ms }: Judged): number {
  const sendingS = Math.max(1e-3, duration_s - (e2e_ms?.p50 ?? 0) / 1000);
  return succeeded / sendingS / Math.max(1e-9, offered_per_second!);
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
