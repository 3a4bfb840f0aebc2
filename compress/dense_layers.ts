/** Layers that stay dense because a recipe says so, and what the others must lose instead. */
import { OatmillError } from "../errors.ts";
import { isSparseOnly, MAX_RATE, patternGroups, type Recipe } from "../models/recipe.ts";
import { linearKind, linearNames, linearShapes, type ModelSpec } from "../models/spec.ts";
import { checkStructuredRate } from "./structured/targets.ts";

/**
 * Rate of the layers that are compressed, so that all block weights together have the recipe's: ρ / f, where f is their
 * share of the weights. Method `structured` counts its rate on all of them from the start.
 *
 * @returns ρ in [0, 0.95]
 * @throws {OatmillError} invalid_recipe when the model has no layer of a name, or the others cannot lose so much
 */
export function sparseRate(spec: ModelSpec, { method, rate, dense, pattern }: Recipe): number {
  const shapes = linearShapes(spec);
  const names = linearNames(spec), kinds = [...new Set(names.map(linearKind))];
  const unknown = dense.find((kind) => !kinds.includes(kind));
  if (unknown) {
    throw new OatmillError(
      "invalid_recipe",
      `Cannot leave layer "${unknown}" dense: the model has only ${kinds.join(", ")}`,
      "dense",
    );
  }
  if (method === "none" || rate === 0) return rate;
  if (method === "structured") {
    checkStructuredRate(spec, { rate, dense });
    return rate;
  }
  const groups = patternGroups(pattern);
  if (groups && isSparseOnly({ method })) return rate; // N:M says the rate of each layer: dense ones are on top of it
  const size = (some: readonly (typeof names)[number][]) =>
    some.reduce((sum, name) => sum + shapes[name]![0] * shapes[name]![1], 0);
  const share = size(names.filter((name) => !dense.includes(linearKind(name)))) / size(names);
  if (rate > MAX_RATE * share) {
    throw new OatmillError(
      "invalid_recipe",
      `Cannot remove ${rate} of the block weights: with ${dense.join(", ")} dense the other layers hold ${
        share.toFixed(3)
      } of them and can lose ${(MAX_RATE * share).toFixed(3)} at most`,
      "dense",
    );
  }
  return rate / share;
}
