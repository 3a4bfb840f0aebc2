/**
 * One compression from source model to artifact: calibration text, plans for all layers, one pass over the blocks
 * (statistics, then all of the block's layers in parallel), artifact, perplexity. Call it from any thread; the heavy work
 * runs in workers.
 */
import { OatmillError } from "../errors.ts";
import { ArtifactWriter } from "../models/formats/artifact.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { isOnnxFile } from "../models/onnx/onnx_file.ts";
import { openCheckpoint } from "../models/open.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { encoderTensors } from "../models/pack_dense.ts";
import { blockNorms, inputNames, linearNames, type ModelSpec } from "../models/spec.ts";
import { checkTokenizerJson } from "../models/tokenizer_check.ts";
import { compressBlocks } from "./compress_blocks.ts";
import type { CompressionContext } from "./compression_context.ts";
import { sparseRate } from "./dense_layers.ts";
import { checkWeights } from "./finite.ts";
import { evaluateArtifact, finishArtifact } from "./finish_artifact.ts";
import { embedInputs } from "./embed_inputs.ts";
import { readInputs } from "./inputs.ts";
import { LinalgPool } from "./linalg/pool.ts";
import { planBlocks } from "./plans.ts";
import { ProgressReporter } from "./progress.ts";
import { denseQuality } from "./quality.ts";
import { chooseBlockChunks } from "./stored_parts.ts";
import type { CompressOptions, CompressResult } from "./types.ts";
import { WorkSpace } from "./work_space.ts";

/**
 * @throws {OatmillError} invalid_recipe, conflict (`out` exists), cancelled, storage_failed, and what reading the
 * source throws. Nothing is left at `out` after an error.
 */
export async function compress(options: CompressOptions): Promise<CompressResult> {
  const start = performance.now();
  const recipe = parseRecipe(options.recipe);
  if (isOnnxFile(options.source)) {
    const { compressGraph } = await import("./graph/compress_graph.ts"); // few sources need it
    return await compressGraph(options, recipe);
  }
  using progress = new ProgressReporter(options);
  const checkpoint = await progress.time("read", () => openCheckpoint(options.source));
  try {
    using pool = new LinalgPool(options.threads);
    const { spec } = checkpoint;
    // Before hours of work, not at their end: that the rate can be met, and that the artifact's tokenizer was checked.
    sparseRate(spec, recipe);
    if (checkpoint.tokenizerFiles) checkTokenizerJson(checkpoint.tokenizerFiles.tokenizer);
    const writer = await ArtifactWriter.create(options.out, { maxTensors: maxTensors(spec) });
    try {
      await progress.time("read", () => checkWeights(checkpoint, () => progress.checkCancelled()));
      using space = WorkSpace.beside(options.out, options.workMemoryBytes);
      const blockChunks = chooseBlockChunks(spec);
      const header = await run({ options, recipe, progress, checkpoint, pool, writer, space, blockChunks });
      return {
        artifact: options.out,
        header,
        seconds: (performance.now() - start) / 1000,
        peakRssBytes: progress.peakRssBytes,
        phases: progress.phases,
      };
    } catch (error) {
      await writer.abort();
      throw error;
    }
  } finally {
    checkpoint.close();
  }
}

function parseRecipe(input: unknown): Recipe {
  const parsed = recipeSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new OatmillError(
    "invalid_recipe",
    issue.path.length > 0
      ? `Recipe field "${issue.path.join(".")}": ${issue.message}`
      : `Recipe: ${issue.message}`,
    issue.path.join(".") || null,
  );
}

/**
 * Tables, final norm, an encoder's two ends; a block: its norms, router, scales, layers of three parts; norms and layers
 * perhaps with a bias.
 */
const maxTensors = (spec: ModelSpec): number =>
  8 + encoderTensors(spec).length + spec.blocks *
    (2 * Object.keys(blockNorms(spec)).length + 1 + inputNames(spec).length + 4 * linearNames(spec).length);

async function run(context: CompressionContext): Promise<ArtifactHeader> {
  const { progress, checkpoint, pool } = context;
  const inputs = await progress.time("sample", () => readInputs(context));
  const residuals = await embedInputs(inputs, context), { calibration, heldOut } = residuals;
  const plans = await planBlocks(inputs, residuals, context);
  const blocks = await compressBlocks(plans, residuals, context);
  const dense = await progress.time("evaluate", () => denseQuality(inputs, heldOut, context));
  const spec = plans.pruning?.spec ?? checkpoint.spec;
  const header = await progress.time("write", () => finishArtifact(blocks, { spec, calibration, context }));
  pool.close(); // the workers' memory would add to the engine's
  return await evaluateArtifact(header, inputs, { dense, context });
}
