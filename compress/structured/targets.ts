/** How much structured pruning removes from each block, and whether a recipe can ask for it. */
import { OatmillError } from "../../errors.ts";
import type { Recipe } from "../../models/recipe.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { blockParameters, legalSizes, withSizes } from "./sizes.ts";

type Wanted = Pick<Recipe, "rate" | "dense">;

/** The largest share of a block's weights that can go: one KV group, one query head and one unit of channels stay. */
export function largestRate(spec: ModelSpec, { dense }: Pick<Recipe, "dense">): number {
  const least = legalSizes(spec, dense)
    .reduce((n, sizes) => Math.min(n, blockParameters(withSizes(spec, sizes))), Infinity);
  return 1 - least / blockParameters(spec);
}

/** @throws {OatmillError} invalid_recipe when heads and channels that may go are not that many, or whole experts would have to */
export function checkStructuredRate(spec: ModelSpec, { rate, dense }: Wanted): void {
  if (spec.mlp.experts) {
    throw new OatmillError(
      "invalid_recipe",
      `Cannot remove heads and channels of "${spec.family}": its MLP is a mixture of experts, whose layers other methods make S + L`,
      "method",
    );
  }
  const most = largestRate(spec, { dense });
  if (rate <= most) return;
  throw new OatmillError(
    "invalid_recipe",
    `Cannot remove ${rate} of the block weights: whole heads and channels that may go hold ${
      most.toFixed(3)
    }` +
      (dense.length > 0 ? `, since ${dense.join(", ")} keep their shapes` : ""),
    dense.length > 0 ? "dense" : "rate",
  );
}

/** Rates with the same mean, none above `most`: what blocks cannot lose the others do, all equally much more. */
export function cappedRates(rates: readonly number[], most: number): number[] {
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const at = (shift: number) => rates.map((rate) => Math.min(most, rate + shift));
  let below = 0, above = 1;
  if (mean(at(0)) >= mean(rates)) return [...rates];
  for (let i = 0; i < 60; i++) {
    const middle = (below + above) / 2;
    if (mean(at(middle)) < mean(rates)) below = middle;
    else above = middle;
  }
  return at(above);
}
