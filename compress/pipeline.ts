/**
 * One compression from source model to artifact: calibration text, plans for all layers, one pass over the blocks
 * (statistics, then all of the block's layers in parallel), artifact, perplexity. Call it from any thread; the heavy work
 * runs in workers.
 */
import { OatmillError } from "../errors.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { ArtifactWriter, type WriterMark } from "../models/formats/artifact_writer.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { isOnnxFile } from "../models/onnx/onnx_file.ts";
import { openCheckpoint } from "../models/open.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { encoderTensors } from "../models/pack_dense.ts";
import { blockNorms, inputNames, linearNames, type ModelSpec } from "../models/spec.ts";
import { checkTokenizerJson } from "../models/tokenizer_check.ts";
import { compressBlocks } from "./compress_blocks.ts";
import type { CompressionRun, SourceContext } from "./compression_context.ts";
import { sparseRate } from "./dense_layers.ts";
import { checkWeights } from "./finite.ts";
import { evaluateArtifact, finishArtifact } from "./finish_artifact.ts";
import { embedInputs } from "./embed_inputs.ts";
import { type Inputs, readInputs } from "./inputs.ts";
import { LinalgPool } from "./linalg/pool.ts";
import { planBlocks } from "./plans.ts";
import { ProgressReporter } from "./progress.ts";
import { type DenseQuality, earlierDenseQuality, keptDenseQuality } from "./quality.ts";
import { checkRecoverSource } from "./recovery/check.ts";
import { dropBlocks, keptBlocks } from "./resume/block_units.ts";
import { WorkFolder } from "./resume/work_folder.ts";
import { chooseBlockChunks } from "./stored_parts.ts";
import type { CompressOptions, CompressResult } from "./types.ts";
import { WorkSpace } from "./work_space.ts";

/**
 * @throws {OatmillError} invalid_recipe, conflict (`out` exists, or another run uses `work`), cancelled, storage_failed, and
 * what reading the source throws. Nothing is at `out` after an error; what is finished stays in `work`.
 */
export async function compress(options: CompressOptions): Promise<CompressResult> {
  const recipe = parseRecipe(options.recipe);
  using work = await WorkFolder.open(options, recipe);
  const done = work.result();
  if (done) return done;
  using progress = new ProgressReporter(options);
  const before = work.journal.follow(() => progress.snapshot());
  if (before) progress.restore(before);
  const run = isOnnxFile(options.source)
    ? (await import("./graph/compress_graph.ts")).compressGraph // few sources need it
    : compressModel;
  const header = await run({ options, recipe, progress, work });
  const { phases, peakRssBytes, seconds } = progress;
  const result = { artifact: options.out, header, seconds, peakRssBytes, phases };
  await work.publish(result);
  return result;
}

async function compressModel(run: CompressionRun): Promise<ArtifactHeader> {
  const { options, recipe, progress, work } = run;
  const checkpoint = await progress.time("read", () => openCheckpoint(options.source));
  try {
    using pool = new LinalgPool(work.threads);
    const { spec } = checkpoint;
    // Before hours of work, not at their end: that the rate can be met, and that the artifact's tokenizer was checked.
    sparseRate(spec, recipe);
    if (recipe.recover) checkRecoverSource(checkpoint);
    if (checkpoint.tokenizerFiles) checkTokenizerJson(checkpoint.tokenizerFiles.tokenizer);
    await progress.time("read", () => checkWeights(checkpoint, () => progress.checkCancelled()));
    using space = WorkSpace.open(work.scratch, options.workMemoryBytes);
    const context = { ...run, checkpoint, pool, space, blockChunks: chooseBlockChunks(spec) };
    const recovery = recipe.recover && await import("./recovery/recover_compressed.ts"); // few recipes need it
    await recovery?.prepareRecovery(context);
    const header = await evaluateWritten(context) ?? await makeArtifact(context);
    return await recovery?.recoverCompressed(context) ?? header;
  } finally {
    checkpoint.close();
  }
}

/** @throws {OatmillError} invalid_recipe */
export function parseRecipe(input: unknown): Recipe {
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

async function makeArtifact(source: SourceContext): Promise<ArtifactHeader> {
  const { writer, finished } = await openWriter(source), context = { ...source, writer, finished };
  try {
    const { progress, checkpoint } = context;
    const inputs = await progress.time("sample", () => readInputs(context));
    const residuals = await embedInputs(inputs, context), { calibration, heldOut } = residuals;
    const plans = await planBlocks(inputs, residuals, context);
    const blocks = await compressBlocks(plans, residuals, context);
    const dense = plans.quality ?? await keptDenseQuality(inputs, heldOut, context);
    const spec = plans.pruning?.spec ?? checkpoint.spec;
    const header = await progress.time("write", () => finishArtifact(blocks, { spec, calibration, context }));
    return await evaluate(header, inputs, { dense, context });
  } finally {
    writer.close();
  }
}

/** Goes on behind the blocks that an earlier run wrote; begins again when what it wrote is not there any more. */
async function openWriter({ work, recipe, checkpoint: { spec } }: SourceContext) {
  const { journal, artifact, partial } = work, { blocks } = spec;
  const sequential = recipe.calibration.statistics === "sequential";
  const found = keptBlocks(journal, { blocks, sequential });
  const open = (marks: readonly WriterMark[]) =>
    ArtifactWriter.create(artifact, { maxTensors: maxTensors(spec), temporary: partial, marks });
  const writer = await open(found.map(({ mark }) => mark));
  const finished = writer.resumed === found.length ? found : [];
  dropBlocks(journal, finished.length, blocks);
  if (writer.resumed === finished.length) return { writer, finished };
  writer.close();
  return { writer: await open([]), finished };
}

/** Null when no earlier run had written the artifact's last tensor. */
async function evaluateWritten(context: SourceContext): Promise<ArtifactHeader | null> {
  const { progress, work } = context;
  const dense = earlierDenseQuality(context);
  if (!dense || !await isArtifact(work.artifact)) {
    await Deno.remove(work.artifact, { recursive: true }).catch(() => {});
    return null;
  }
  const { header } = await openArtifact(work.artifact);
  if (header.perplexity || header.agreement) return header;
  progress.report("evaluate", 0, 1, "Resumed at the evaluation");
  const inputs = await progress.time("sample", () => readInputs(context));
  return await evaluate(header, inputs, { dense, context });
}

async function evaluate(
  header: ArtifactHeader,
  inputs: Inputs,
  { dense, context }: { readonly dense: DenseQuality; readonly context: SourceContext },
): Promise<ArtifactHeader> {
  context.pool.close(); // the workers' memory would add to the engine's
  return await evaluateArtifact(header, inputs, { dense, context });
}
