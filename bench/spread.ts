/** Numbers that say how repeated timings lie. */

/** @param q from 0 (smallest) to 1 (largest); between two values it lies in proportion, as in numpy's default */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * q, below = Math.floor(at);
  const low = sorted[below], high = sorted[Math.ceil(at)];
  return low + (high - low) * (at - below);
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** How far the repetitions lie apart whose median a figure is: all of them, and the middle half. */
export interface Spread {
  readonly min: number;
  readonly q1: number;
  readonly q3: number;
  readonly max: number;
}

/** @param values at least one */
export function spread(values: readonly number[]): Spread {
  const [min, q1, q3, max] = [0, 0.25, 0.75, 1].map((q) => quantile(values, q));
  return { min, q1, q3, max };
}
