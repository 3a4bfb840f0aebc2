/**
 * OWL, Outlier Weighed Layerwise sparsity (arXiv 2310.05175): a block with more outliers among its scores
 * |W_ij| ||X_j||_2 keeps more. A hypothesis, not a law: it helps Llama-like models and costs SmolLM2 3 perplexity at
 * rate 0.5 (53.4 to 56.5).
 */

/** A layer's weights `[dOut, dIn]` and the root mean square `[dIn]` of its inputs. */
export interface ScoredLayer {
  readonly W: Float32Array;
  readonly d: Float32Array;
}

/** Share of a block's scores, all its linear layers together, above m x their mean; 0 when all are 0. */
export const outlierRatio = (layers: readonly ScoredLayer[], m: number): number =>
  outlierRatios(layers, [m])[0];

/**
 * The same for several m, in the two passes that one takes.
 * @param multiples rising
 */
export function outlierRatios(layers: readonly ScoredLayer[], multiples: readonly number[]): number[] {
  let sum = 0, count = 0;
  for (const { W, d } of layers) {
    for (let at = 0; at < W.length; at += d.length) {
      for (let j = 0; j < d.length; j++) sum += Math.abs(W[at + j]) * d[j];
    }
    count += W.length;
  }
  const bounds = multiples.map((m) => m * sum / count), outliers = multiples.map(() => 0);
  for (const { W, d } of layers) {
    for (let at = 0; at < W.length; at += d.length) {
      for (let j = 0; j < d.length; j++) {
        const score = Math.abs(W[at + j]) * d[j];
        for (let k = 0; k < bounds.length && score > bounds[k]; k++) outliers[k]++;
      }
    }
  }
  return outliers.map((n) => n / count);
}

/** Rates stay below this: a block without parameters cannot be described by S and L. */
const MAX_RATE = 0.99;

/**
 * Rates of the blocks: ratios spread over [0, 2 λ], subtracted, and shifted so that their mean is `rate`, within
 * [0, 0.99].
 *
 * @param ratios outlier ratio of each block
 * @param options.sizes of the blocks, where they differ: what the mean is weighted by
 */
export function owlRates(
  ratios: readonly number[],
  { rate, lambda, sizes }: {
    readonly rate: number;
    readonly lambda: number;
    readonly sizes?: readonly number[];
  },
): number[] {
  if (rate === 0) return ratios.map(() => 0); // bisection would leave 1e-18, which is not nothing
  const low = Math.min(...ratios), spread = Math.max(...ratios) - low;
  const offsets = ratios.map((r) => spread > 0 ? -2 * lambda * (r - low) / spread : 0);
  const at = (shift: number) => offsets.map((o) => Math.min(MAX_RATE, Math.max(0, o + shift)));
  const weights = sizes ?? ratios.map(() => 1), all = weights.reduce((a, b) => a + b, 0);
  const mean = (values: readonly number[]) => values.reduce((sum, x, i) => sum + weights[i] * x, 0) / all;
  let below = 0, above = 2 + 2 * lambda;
  for (let i = 0; i < 60; i++) { // bisection: the mean grows with the shift, clipped or not
    const middle = (below + above) / 2;
    if (mean(at(middle)) < rate) below = middle;
    else above = middle;
  }
  return at(above);
}
