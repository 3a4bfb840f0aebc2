/** Worker side of an update: a piece of the trained values with its gradients and moments, all in shared memory. */
import { type AdamWOptions, adamwStep } from "./adamw.ts";
import type { SharedFloats } from "./parameters.ts";

/** Values of a piece: sums are in the order of pieces, so they must not depend on the number of threads. */
export const PIECE_VALUES = 1 << 22;

export interface SumGradientsJob {
  readonly kind: "sumGradients";
  /** One piece of each lane's gradient; the first becomes their sum. */
  readonly lanes: readonly SharedFloats[];
}

/** @returns the sum's squared length */
export function sumGradients({ lanes: [sum, ...others] }: SumGradientsJob): number {
  for (const lane of others) for (let i = 0; i < sum.length; i++) sum[i] += lane[i];
  let square = 0;
  for (let i = 0; i < sum.length; i++) square += sum[i] * sum[i];
  return square;
}

export interface UpdateJob {
  readonly kind: "updateValues";
  readonly values: SharedFloats;
  readonly gradients: SharedFloats;
  readonly first: SharedFloats;
  readonly second: SharedFloats;
  readonly options: AdamWOptions;
}

export function updateValues({ values, gradients, first, second, options }: UpdateJob): void {
  adamwStep(values, gradients, { first, second }, options);
}
