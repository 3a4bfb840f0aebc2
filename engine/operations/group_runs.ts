/** Which rows of a linear layer a thread computes. */

/** Groups `from .. to - 1` of one weight, whose first row is written to group `outGroup` of the output. */
export interface GroupRun {
  readonly part: number;
  readonly from: number;
  readonly to: number;
  readonly outGroup: number;
}

/**
 * A thread's share of weights that lie one after the other, by whole panels (two groups): at most one run a weight.
 * @param counts groups of each weight
 */
export function groupRuns(counts: readonly number[], thread: number, threads: number): GroupRun[] {
  const panels = counts.map((n) => Math.ceil(n / 2));
  const all = panels.reduce((a, b) => a + b, 0);
  const begin = Math.floor(all * thread / threads), end = Math.floor(all * (thread + 1) / threads);
  const runs: GroupRun[] = [];
  let first = 0, outGroup = 0;
  counts.forEach((count, part) => {
    const from = 2 * Math.max(0, begin - first), to = Math.min(count, 2 * (end - first));
    if (from < to) runs.push({ part, from, to, outGroup: outGroup + from });
    first += panels[part];
    outGroup += count;
  });
  return runs;
}
