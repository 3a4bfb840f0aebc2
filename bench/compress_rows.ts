/** The rows of `bench compress`: one recipe each; calibration and evaluation are added to all of them. */
import type { RecipeInput } from "../models/recipe.ts";

/** As the methods were published: exact values, the mask that the paper chooses, nothing refitted. */
const published = (recipe: RecipeInput): RecipeInput => ({
  rate: 0.5,
  values: "f32",
  pattern: "unstructured",
  refine: false,
  allocation: "uniform",
  ...recipe,
  calibration: { products: "f32", ...recipe.calibration },
});
/** One step of the default recipe, as it is served. */
const oatmill = (recipe: RecipeInput = {}): RecipeInput => ({ method: "oatmill", rate: 0.5, ...recipe });

export const COMPRESS_ROWS = {
  "dense f32": { method: "none", values: "f32" },
  "dense int8": { method: "none", values: "int8" },
  "dense int5": { method: "none", values: "int5" },
  "dense int4": { method: "none", values: "int4" },
  "dense int8: feedback": { method: "none", values: "int8", rounding: "feedback" },
  "dense int4: feedback": { method: "none", values: "int4", rounding: "feedback" },
  "dense int3: feedback": { method: "none", values: "int3", rounding: "feedback" },
  "dense mixed 4 bits: feedback": { method: "none", mean_bits: 4, rounding: "feedback" },
  "dense mixed 3.5 bits: feedback": { method: "none", mean_bits: 3.5, rounding: "feedback" },
  "magnitude 0.5": published({ method: "magnitude" }),
  "wanda 0.5": published({ method: "wanda" }),
  "wanda 2:4": published({ method: "wanda", pattern: "2:4" }),
  "wanda 4:8": published({ method: "wanda", pattern: "4:8" }),
  "wanda 8:16": published({ method: "wanda", pattern: "8:16" }),
  "wanda 0.5: windows": published({ method: "wanda", pattern: "windows" }),
  "sparsegpt 0.5": published({ method: "sparsegpt" }),
  "svd 0.5": published({ method: "svd" }),
  "structured 0.2": { method: "structured", rate: 0.2, allocation: "uniform" },
  "oats 0.5": published({ method: "oats" }),
  "oats 0.5: exact 80 steps": published({
    method: "oats",
    decomposition: "exact",
    iterations: 80,
    calibration: { statistics: "sequential" },
  }),
  "oats 0.5: owl": published({ method: "oats", allocation: "owl" }),
  "oats 0.5: refit": published({ method: "oats", refine: true }),
  "fast 0.5": { preset: "fast", rate: 0.5, calibration: { sequences: 8 } },
  "oatmill 0.5": oatmill(),
  "oatmill 0.5: feedback": oatmill({ rounding: "feedback" }),
  "oatmill 0.5: one rate": oatmill({ allocation: "uniform" }),
  "oatmill 0.5: OWL's rates": oatmill({ allocation: "owl" }),
  "oatmill 0.5: first choice": oatmill({ reselect: 0 }),
  "oatmill 0.5: no refit": oatmill({ reselect: 0, refine: false }),
  "oatmill 0.5: rank ratio 0.25": oatmill({ rank_ratio: 0.25 }),
  "oatmill 0.5: rank ratio 0": oatmill({ rank_ratio: 0 }),
  "oatmill 0.5: unstructured f32": oatmill({ pattern: "unstructured", values: "f32" }),
  "oatmill 0.5: windows f32": oatmill({ values: "f32" }),
  "oatmill 0.5: int4": oatmill({ values: "int4" }),
  "oatmill 0.5: int4 feedback": oatmill({ values: "int4", rounding: "feedback" }),
  "oatmill 0.4": oatmill({ rate: 0.4 }),
  "oatmill 0.3": oatmill({ rate: 0.3 }),
  "oatmill 0.7": oatmill({ rate: 0.7 }),
} as const satisfies Readonly<Record<string, RecipeInput>>;

/** Budgets in bytes, as shares of what dense int8 takes: a model's artifact says how many bytes that is. */
export const BUDGET_ROWS = {
  "budget of int8": 1,
  "budget of 0.8 int8": 0.8,
  "budget of 0.63 int8": 0.63, // about dense int4
  "budget of 0.55 int8": 0.55,
} as const;
/** What such a budget is spent by. */
const SPENDING: RecipeInput = { method: "oatmill", rounding: "feedback" };

export type CompressRowName = keyof typeof COMPRESS_ROWS | keyof typeof BUDGET_ROWS;
export const COMPRESS_ROW_NAMES = [
  ...Object.keys(COMPRESS_ROWS),
  ...Object.keys(BUDGET_ROWS),
] as CompressRowName[];

/** @param int8Bytes of the model's artifact in dense int8 */
export function rowRecipeOf(name: CompressRowName, int8Bytes: number): RecipeInput {
  if (!(name in BUDGET_ROWS)) return COMPRESS_ROWS[name as keyof typeof COMPRESS_ROWS];
  const share = BUDGET_ROWS[name as keyof typeof BUDGET_ROWS];
  return { ...SPENDING, budget: { bytes: Math.floor(share * int8Bytes) } };
}
