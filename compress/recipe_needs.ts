/** What a recipe needs to know of a model before it can compress it. */
import type { Recipe } from "../models/recipe.ts";
import { layerMethod } from "./methods/mod.ts";

/** Whether calibration is wanted at all: dense weights that are rounded to nearest, in one kind of values, need none. */
export const needsCalibration = (recipe: Recipe): boolean =>
  recipe.method !== "none" || roundsWithFeedback(recipe) || recipe.mean_bits !== null;

/** Whether X'X is wanted: by the rounding, the refit, or by the method itself. */
export const needsMoments = (recipe: Recipe): boolean =>
  roundsWithFeedback(recipe) ||
  (recipe.method !== "none" && (recipe.refine || layerMethod(recipe)?.needs(recipe) === "moments"));

const roundsWithFeedback = ({ values, rounding }: Recipe): boolean =>
  values !== "f32" && rounding === "feedback";

/** Whether OWL's outlier ratios are: by rates, or by bits. */
export const needsOutlierRatios = (recipe: Recipe): boolean =>
  recipe.mean_bits !== null || spreadsRates(recipe);

/** Whether blocks have rates of their own, by their outlier ratios. */
export const spreadsRates = ({ allocation, method, rate }: Recipe): boolean =>
  allocation.kind === "owl" && method !== "none" && rate > 0;

/** Whether losses are: every layer then has a plan of its own. */
export const needsMeasuring = ({ allocation, method, rate, budget }: Recipe): boolean =>
  allocation.kind === "measured" && method !== "none" && (budget !== null || rate > 0);
