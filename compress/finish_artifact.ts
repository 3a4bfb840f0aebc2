/** The end of a compression: what stands behind the blocks, the header, and both perplexities. */
import { basename } from "node:path";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";
import { updateHeader } from "../models/formats/artifact_writer.ts";
import type { ArtifactHeader, LayerReport } from "../models/formats/artifact_header.ts";
import { encoderTensors } from "../models/pack_dense.ts";
import { encodeInsight, INSIGHT_FILE } from "../models/formats/insight_file.ts";
import type { Recipe } from "../models/recipe.ts";
import { encodeSourceConfig, SOURCE_CONFIG_FILE } from "../models/formats/source_config.ts";
import { hasFinalNorm, type ModelSpec } from "../models/spec.ts";
import type { CompressedBlocks } from "./compress_blocks.ts";
import type { CompressionContext, SourceContext } from "./compression_context.ts";
import { blockWeights } from "./forward/block_graph.ts";
import type { Residual } from "./forward/dense_forward.ts";
import type { Inputs } from "./inputs.ts";
import { type DenseQuality, servedQuality } from "./quality.ts";
import { VERSION } from "./version.ts";
import type { CompressOptions } from "./types.ts";
import { writeNorm, writeTable } from "./write_tensors.ts";

/**
 * Writes what is left, and gives the folder its name.
 * @param calibration what the statistics come from
 * @returns the header, without perplexities
 */
export async function finishArtifact(
  { layers, insight }: CompressedBlocks,
  { spec, calibration, context }: {
    /** With the sizes of pruned blocks. */
    readonly spec: ModelSpec;
    readonly calibration: Residual;
    readonly context: CompressionContext;
  },
): Promise<ArtifactHeader> {
  const { checkpoint, writer, options, recipe, blockChunks } = context;
  if (hasFinalNorm(spec)) await writeNorm("finalNorm", context);
  if (spec.attention.causal && !spec.tiedEmbeddings) {
    await writeTable("head", (await checkpoint.read("head")).data, context);
  }
  const { sequences, length } = calibration, text = basename(recipe.calibration.text);
  const found = insight.result(sequences > 0 ? { text, sequences, length } : null);
  await writer.addFile(INSIGHT_FILE, encodeInsight(found));
  const { sourceConfig } = checkpoint;
  if (sourceConfig) await writer.addFile(SOURCE_CONFIG_FILE, encodeSourceConfig(sourceConfig));
  return await writer.finish({
    oatmill: VERSION,
    created: new Date().toISOString(),
    name: options.name ?? basename(options.out),
    spec,
    recipe: shownRecipe(
      recipe.budget || recipe.method === "none" ? { ...recipe, rate: meanRate(layers) } : recipe,
      options,
    ),
    source: {
      file: basename(checkpoint.path),
      format: checkpoint.format,
      tensorBytes: checkpoint.tensorBytes,
    },
    blockChunks,
    layers,
    perplexity: null,
    denseBytes: denseHalfBytes(checkpoint),
  }, checkpoint.tokenizerFiles);
}

/** A recipe as headers have it. */
export function shownRecipe(recipe: Recipe, { hidesFolders }: CompressOptions): Recipe {
  if (!hidesFolders) return recipe;
  const { calibration, evaluate, recover } = recipe;
  return {
    ...recipe,
    calibration: { ...calibration, text: basename(calibration.text) },
    evaluate: { ...evaluate, text: evaluate.text && basename(evaluate.text) },
    recover: recover && { ...recover, text: recover.text && basename(recover.text) },
  };
}

/** Share of the layers' parameters that were removed. */
function meanRate(layers: readonly LayerReport[]): number {
  const size = ({ shape }: LayerReport) => shape[0] * shape[1];
  const all = layers.reduce((sum, layer) => sum + size(layer), 0);
  return Math.max(0, layers.reduce((sum, layer) => sum + layer.rate * size(layer), 0) / all);
}

/** Bytes of the whole model in dense float16. */
function denseHalfBytes(checkpoint: Checkpoint): number {
  const { spec } = checkpoint;
  const rows = spec.vocabSize * (spec.tiedEmbeddings ? 1 : 2) +
    (spec.learnedPositions ? spec.contextLength : 0);
  const ends = encoderTensors(spec).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const weights = blockWeights(spec, (name) => checkpoint.has(`block.0.${name}` as WeightRole));
  const block = Object.values(weights).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return 2 *
    (rows * spec.hiddenSize + ends + spec.blocks * block + (hasFinalNorm(spec) ? spec.hiddenSize : 0));
}

/** Measures the artifact as it will be served and stores what came out in it. */
export async function evaluateArtifact(
  header: ArtifactHeader,
  inputs: Inputs,
  { dense, context }: { readonly dense: DenseQuality; readonly context: SourceContext },
): Promise<ArtifactHeader> {
  const { work, progress } = context;
  const quality = await progress.time("evaluate", () => servedQuality(inputs, dense, context));
  progress.checkCancelled();
  const measured = { ...header, ...quality };
  await updateHeader(work.artifact, measured);
  return measured;
}
