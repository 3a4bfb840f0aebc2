/**
 * Rates for N:M patterns: every block has a whole N of its own, their mean stays (OWL, arXiv 2310.05175, mixed N:8
 * sparsity).
 */
import type { Groups } from "../../models/recipe.ts";

/**
 * Rounds rates to 1 - N_b / M with 1 <= N_b <= M and the sum of all N_b that of the pattern's N.
 *
 * @param rates of the blocks, with mean 1 - N / M
 */
export function groupRates(rates: readonly number[], { n, m }: Groups): number[] {
  const wanted = rates.map((rate) => m * (1 - rate));
  const counts = wanted.map((count) => Math.min(m, Math.max(1, Math.round(count))));
  let missing = n * rates.length - counts.reduce((a, b) => a + b, 0);
  for (; missing !== 0; missing -= Math.sign(missing)) {
    const step = Math.sign(missing), limit = step > 0 ? m : 1;
    let best = -1, most = -Infinity; // the block that rounding moved furthest the other way
    counts.forEach((count, i) => {
      const gain = step * (wanted[i] - count);
      if (count !== limit && gain > most) {
        most = gain;
        best = i;
      }
    });
    counts[best] += step;
  }
  return counts.map((count) => 1 - count / m);
}
