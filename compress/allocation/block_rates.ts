/** Each block's rate where no losses are measured. */
import { isSparseOnly, patternGroups, type Recipe } from "../../models/recipe.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { sparseRate } from "../dense_layers.ts";
import { spreadsRates } from "../recipe_needs.ts";
import { groupRates } from "./group_rates.ts";
import { owlRates } from "./owl.ts";
import { uniformRates } from "./uniform.ts";

/**
 * Of the layers that are compressed: one rate, or OWL's; whole N of M where the pattern alone says the rate.
 * @param ratios of the blocks; null unless the recipe needs them
 */
export function blockRates(spec: ModelSpec, recipe: Recipe, ratios: readonly number[] | null): number[] {
  const rate = sparseRate(spec, recipe);
  if (!ratios || !spreadsRates(recipe)) return uniformRates(spec.blocks, rate);
  const rates = owlRates(ratios, { rate, lambda: recipe.allocation.lambda });
  const groups = patternGroups(recipe.pattern);
  return groups && isSparseOnly(recipe) ? groupRates(rates, groups) : rates;
}
