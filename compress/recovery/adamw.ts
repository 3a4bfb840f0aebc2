/** AdamW (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2 with bias correction), and the length gradients are cut to. */

export interface AdamWOptions {
  /** Of this step. */
  readonly rate: number;
  /** Counted from 1. */
  readonly step: number;
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  readonly weightDecay: number;
  /** What gradients are multiplied by first. */
  readonly gradientScale: number;
}

/** Running means of a gradient and of its square, of the values' length. */
export interface Moments {
  readonly first: Float32Array;
  readonly second: Float32Array;
}

/**
 * One step, in place: m and v follow the gradient and its square, values move by rate m̂ / (√v̂ + ε) and shrink by rate x decay.
 *
 * @param values stored in f32, computed in f64; gradients and moments have its length
 */
export function adamwStep(
  values: Float32Array,
  gradients: Float32Array,
  { first, second }: Moments,
  { rate, step, betas: [beta1, beta2], epsilon, weightDecay, gradientScale }: AdamWOptions,
): void {
  const stepSize = rate / (1 - beta1 ** step), root = 1 / Math.sqrt(1 - beta2 ** step);
  const keep = 1 - rate * weightDecay, other1 = 1 - beta1, other2 = 1 - beta2;
  for (let i = 0; i < values.length; i++) {
    const g = gradients[i] * gradientScale;
    const m = beta1 * first[i] + other1 * g, v = beta2 * second[i] + other2 * g * g;
    first[i] = m;
    second[i] = v;
    values[i] = values[i] * keep - stepSize * m / (Math.sqrt(v) * root + epsilon);
  }
}

/**
 * What a gradient of length `norm` is multiplied by so that it is no longer than `most` (Pascanu et al., arXiv 1211.5063).
 * @returns 0 for one that is not finite: the step then teaches nothing, and spoils nothing
 */
export const clipFactor = (norm: number, most: number): number =>
  Number.isFinite(norm) ? Math.min(1, most / Math.max(norm, Number.MIN_VALUE)) : 0;
