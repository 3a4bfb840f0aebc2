/** What is to become of one linear layer: decided before its weights are looked at, or by measured allocation. */
import { packedBytes, type Shape2 } from "../kernels/layout.ts";
import type { Recipe } from "../models/recipe.ts";
import { budgetBytes, DENSE_WINDOWS, type LayerBudget } from "./budget.ts";
import { codeBits } from "./quantizers/grid.ts";
import { denseFormat, denseValues, sparseBudget } from "./stored_parts.ts";

export interface LayerPlan {
  /** Of S and L; null: the layer stays dense. */
  readonly budget: LayerBudget | null;
  /** How its weights are stored. */
  readonly values: Recipe["values"];
  /** Without a budget: zeros that W comes with are left out, where that pays (source_zeros.ts). */
  readonly zerosOut?: true;
}

/** The recipe's plan for a layer at this rate. */
export const planAtRate = (
  shape: Shape2,
  rate: number,
  options: { readonly recipe: Recipe; readonly blockChunks: number },
): LayerPlan => {
  const budget = sparseBudget(shape, rate, options), { recipe } = options;
  return { budget, values: budget ? recipe.values : denseValues(recipe) };
};

/** Parameters that a plan keeps. */
export function planParameters([dOut, dIn]: Shape2, { budget }: LayerPlan): number {
  return budget ? budget.kept * dOut + budget.rank * (dOut + dIn) : dOut * dIn;
}

/** Bytes of the tensors that a plan makes. An unstructured S counts as the windows that hold as many entries. */
export function planBytes(
  shape: Shape2,
  { budget, values }: LayerPlan,
  blockChunks: number,
): number {
  if (!budget) return packedBytes(denseFormat(values), shape);
  const windows = budget.windows ?? Math.ceil(DENSE_WINDOWS * budget.kept / shape[1]);
  if (values === "f32") return 4 * planParameters(shape, { budget, values });
  return budgetBytes(shape, { rank: budget.rank, windows }, { bits: codeBits(values), blockChunks });
}
