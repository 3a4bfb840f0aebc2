/**
 * One compression from source model to artifact: calibration text, plans for all layers, one pass over the blocks
 * (statistics, then all of the block's layers in parallel), artifact, perplexity. Call it from any thread; the heavy work
 * runs in workers.
 */
import { OatmillError } from "../errors.ts";
import { ArtifactWriter } from "../models/formats/artifact.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { openCheckpoint } from "../models/open.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { blockNorms, type ModelSpec } from "../models/spec.ts";
import { checkTokenizerJson } from "../models/tokenizer_check.ts";
import { compressBlocks } from "./compress_blocks.ts";
import type { CompressionContext, Residuals } from "./compression_context.ts";
import { sparseRate } from "./dense_layers.ts";
import { checkWeights } from "./finite.ts";
import { evaluateArtifact, finishArtifact } from "./finish_artifact.ts";
import { densePerplexity, embed, readEmbedding } from "./forward/dense_forward.ts";
import { LinalgPool } from "./linalg/pool.ts";
import { planBlocks } from "./plans.ts";
import { ProgressReporter } from "./progress.ts";
import { chooseBlockChunks } from "./stored_parts.ts";
import { readTexts, type Texts } from "./texts.ts";
import type { CompressOptions, CompressResult } from "./types.ts";
import { WorkSpace } from "./work_space.ts";
import { writePositions, writeTable } from "./write_tensors.ts";

/**
 * @throws {OatmillError} invalid_recipe, conflict (`out` exists), cancelled, storage_failed, and what reading the
 * source throws. Nothing is left at `out` after an error.
 */
export async function compress(options: CompressOptions): Promise<CompressResult> {
  const start = performance.now();
  const recipe = parseRecipe(options.recipe);
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

/** Tables, final norm; a block: its norms, four scales, seven layers of three parts; each perhaps with a bias. */
const maxTensors = (spec: ModelSpec): number =>
  8 + spec.blocks * (2 * Object.keys(blockNorms(spec)).length + 4 + 7 * 4);

async function run(context: CompressionContext): Promise<ArtifactHeader> {
  const { progress, checkpoint, pool } = context;
  const texts = await progress.time("sample", () => readTexts(context));
  const residuals = await embedTexts(texts, context), { calibration, heldOut } = residuals;
  const plans = await planBlocks(texts, residuals, context);
  const blocks = await compressBlocks(plans, residuals, context);
  const dense = await progress.time("evaluate", () => densePerplexity(heldOut, texts.heldOut, context));
  const spec = plans.pruning?.spec ?? checkpoint.spec;
  const header = await progress.time("write", () => finishArtifact(blocks, { spec, calibration, context }));
  pool.close(); // the workers' memory would add to the engine's
  return await evaluateArtifact(header, texts, { dense, context });
}

/** Hidden states before the first block. The embedding goes into the artifact on the way. */
async function embedTexts({ calibration, heldOut }: Texts, context: CompressionContext): Promise<Residuals> {
  const { progress, checkpoint, space } = context;
  const embedding = await progress.time("read", () => readEmbedding(checkpoint));
  await progress.time("write", async () => {
    await writeTable("embedding", embedding.table, context);
    if (embedding.positions) await writePositions(embedding.positions, context);
  });
  const residual = (name: string, sequences: readonly Int32Array[]) =>
    embed(embedding, sequences, (values) => space.place(name, values));
  return { calibration: residual("calibration", calibration), heldOut: residual("held-out", heldOut) };
}
