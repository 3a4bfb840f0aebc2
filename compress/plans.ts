/** What is to become of every layer, decided before any block is compressed. */
import { measureFormatTimes } from "../kernels/format_times.ts";
import type { Recipe } from "../models/recipe.ts";
import { linearKind, linearNames, linearShapes } from "../models/spec.ts";
import { blockRates } from "./allocation/block_rates.ts";
import { measureLayers } from "./allocation/measure_layers.ts";
import { measuredPlans } from "./allocation/measured.ts";
import { blockValues } from "./allocation/mixed_values.ts";
import { outlierRatios } from "./allocation/outlier_pass.ts";
import type { CompressionContext, Residuals } from "./compression_context.ts";
import type { Inputs } from "./inputs.ts";
import { type LayerPlan, planAtRate } from "./layer_plan.ts";
import { otherBytes } from "./other_bytes.ts";
import { type DenseQuality, earlierDenseQuality, keptDenseQuality } from "./quality.ts";
import { needsMeasuring, needsOutlierRatios } from "./recipe_needs.ts";
import { type StatisticsEntries, StatisticsStore } from "./statistics_store.ts";
import { denseValues } from "./stored_parts.ts";
import { BlockPruning } from "./structured/block_pruning.ts";

/** By layer. */
export type BlockPlan = Readonly<Record<string, LayerPlan>>;
export interface Plans {
  of(block: number): BlockPlan;
  /** Of all blocks, when the plans took a pass over them. */
  readonly statistics: StatisticsStore | null;
  /** Measured behind that pass. */
  readonly quality: DenseQuality | null;
  /** With method `structured`. */
  readonly pruning: BlockPruning | null;
}

/** Measured losses take a pass over all blocks, which keeps its statistics; outlier ratios one over a few sequences. */
export async function planBlocks(
  inputs: Inputs,
  residuals: Residuals,
  context: CompressionContext,
): Promise<Plans> {
  const { recipe, checkpoint: { spec } } = context;
  const ratios = needsOutlierRatios(recipe)
    ? await context.work.journal.keep(
      "outliers",
      () => outlierRatios(residuals.calibration, context),
    )
    : null;
  const values = blockValues(recipe, { blocks: spec.blocks, ratios });
  return needsMeasuring(recipe)
    ? await plansByLoss(inputs, residuals, { values, context })
    : plansAtRates(blockRates(spec, recipe, ratios), { values, context });
}

interface PlanOptions {
  /** Of each block. */
  readonly values: readonly Recipe["values"][];
  readonly context: CompressionContext;
}

/** @param rates of each block */
function plansAtRates(rates: readonly number[], { values, context }: PlanOptions): Plans {
  const { recipe, checkpoint: { spec }, pool, blockChunks } = context, shapes = linearShapes(spec);
  const of = (block: number): BlockPlan => {
    const options = { recipe: { ...recipe, values: values[block] }, blockChunks };
    return Object.fromEntries(
      linearNames(spec).map((name) => {
        const dense = recipe.dense.includes(linearKind(name));
        const plan = planAtRate(shapes[name]!, dense ? 0 : rates[block], options);
        return [name, recipe.method === "none" && !dense ? { ...plan, zerosOut: true } : plan];
      }),
    );
  };
  const prunes = recipe.method === "structured" && recipe.rate > 0;
  return {
    of,
    statistics: null,
    quality: null,
    pruning: prunes ? new BlockPruning(spec, { ...recipe, rates, pool }) : null,
  };
}

/** As a later run finds them. */
interface KeptPlans {
  readonly plans: readonly BlockPlan[];
  /** Null when compression needs its own statistics. */
  readonly statistics: StatisticsEntries | null;
}

async function plansByLoss(
  inputs: Inputs,
  residuals: Residuals,
  { values, context }: PlanOptions,
): Promise<Plans> {
  const { recipe, checkpoint: { spec }, work: { journal } } = context;
  const kept = journal.get<KeptPlans>("plans");
  const quality = earlierDenseQuality(context);
  const { plans, ...found } = kept && (quality || !kept.statistics)
    ? { ...kept, quality, statistics: kept.statistics && new StatisticsStore(journal, kept.statistics) }
    : await measuredPlansOf(inputs, residuals, { values, context });
  const dense: BlockPlan = Object.fromEntries(
    linearNames(spec).filter((name) => recipe.dense.includes(linearKind(name)))
      .map((name) => [name, { budget: null, values: denseValues(recipe) }]),
  );
  return { ...found, of: (block) => ({ ...dense, ...plans[block] }), pruning: null };
}

async function measuredPlansOf(
  inputs: Inputs,
  residuals: Residuals,
  { values, context }: PlanOptions,
): Promise<Pick<Plans, "statistics" | "quality"> & { readonly plans: readonly BlockPlan[] }> {
  const { recipe, checkpoint: { spec }, progress, pool, blockChunks, work: { journal } } = context;
  const { measurements, statistics } = await measureLayers(inputs, residuals, context);
  // The held-out text is behind the last block.
  const quality = statistics && await keptDenseQuality(inputs, residuals.heldOut, context);
  const plans = await progress.time("allocate", async () =>
    measuredPlans(measurements, {
      spec,
      recipe,
      values,
      blockChunks,
      otherBytes: otherBytes(spec, recipe),
      speed: recipe.budget && "ms_per_token" in recipe.budget
        ? { times: await measureFormatTimes(), threads: pool.threads }
        : null,
    }));
  await journal.put("plans", { plans, statistics: statistics && statistics.entries() } satisfies KeptPlans);
  return { plans, statistics, quality };
}
