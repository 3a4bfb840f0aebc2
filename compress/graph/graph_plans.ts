/** What a recipe means for a graph, which has layers but no blocks. */
import { OatmillError } from "../../errors.ts";
import type { Recipe } from "../../models/recipe.ts";
import { owlRates } from "../allocation/owl.ts";
import { type LayerPlan, planAtRate } from "../layer_plan.ts";
import { spreadsRates } from "../recipe_needs.ts";
import { type InputStatistics, toShared } from "../statistics.ts";
import type { GraphContext } from "./compress_graph.ts";

/** Fields that speak of blocks, by what they must be. */
const REFUSED: readonly { field: keyof Recipe; applies: (recipe: Recipe) => boolean; why: string }[] = [
  {
    field: "method",
    applies: ({ method }) => method === "structured",
    why: "heads and channels of a graph are not known",
  },
  {
    field: "budget",
    applies: ({ budget }) => budget !== null,
    why: "losses of a graph's layers are not measured",
  },
  {
    field: "mean_bits",
    applies: ({ mean_bits }) => mean_bits !== null,
    why: "a graph has no blocks to give bits to",
  },
  {
    field: "recover",
    applies: ({ recover }) => recover !== null,
    why: "only models that write text can be recovered",
  },
  { field: "dense", applies: ({ dense }) => dense.length > 0, why: "layers of a graph have other names" },
  {
    field: "calibration",
    applies: ({ calibration }) => calibration.statistics === "sequential",
    why: "all layers of a graph are compressed on the dense one's values",
  },
];

/**
 * The recipe as it is followed: measured losses need blocks, so the layers then have one rate.
 * @throws {OatmillError} invalid_recipe
 */
export function checkGraphRecipe(recipe: Recipe): Recipe {
  for (const { field, applies, why } of REFUSED) {
    if (applies(recipe)) {
      throw new OatmillError(
        "invalid_recipe",
        `Recipe field "${field}" is not for ONNX graphs: ${why}`,
        field,
      );
    }
  }
  const { allocation } = recipe;
  return allocation.kind === "measured"
    ? { ...recipe, allocation: { ...allocation, kind: "uniform" } }
    : recipe;
}

/** A plan for each layer: one rate, or OWL's, with what reads one value in the place of a block. */
export async function layerPlans(
  statistics: readonly InputStatistics[],
  { recipe, layered: { layers }, groups, blockChunks, pool }: GraphContext,
): Promise<LayerPlan[]> {
  const rates = new Array<number>(groups.reduce((a, b) => Math.max(a, b), 0) + 1).fill(recipe.rate);
  if (spreadsRates(recipe)) {
    const { allocation: { lambda, m }, rate } = recipe;
    const members = rates.map((_, group) => layers.filter((_, i) => groups[i] === group));
    const ratios = await Promise.all(members.map((some, group) =>
      pool.run<"outliers">({
        kind: "outliers",
        layers: some.map(({ read }) => ({ W: toShared(read()), d: statistics[group].d })),
        multiples: [m],
      })
    ));
    const sizes = members.map((some) => some.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0));
    owlRates(ratios.flat(), { rate, lambda, sizes }).forEach((owl, group) => rates[group] = owl);
  }
  return layers.map(({ shape }, i) => {
    const plan = planAtRate(shape, rates[groups[i]], { recipe, blockChunks });
    return recipe.method === "none" ? { ...plan, zerosOut: true } : plan;
  });
}
