/** Recovery of an artifact that is there, into a new one beside it. */
import { basename } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import { type Artifact, openArtifact } from "../../models/formats/artifact.ts";
import { artifactVersion } from "../../models/formats/artifact_version.ts";
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import { openCheckpoint } from "../../models/open.ts";
import type { Recipe, RecipeInput, RecoverRecipe } from "../../models/recipe.ts";
import { linearShapes } from "../../models/spec.ts";
import { pass } from "../block_pass.ts";
import { evaluationSequences } from "../calibration.ts";
import type { CompressionRun } from "../compression_context.ts";
import { servedPerplexity } from "../evaluation/served_perplexity.ts";
import { densePerplexity, embed, readBlock, readEmbedding } from "../forward/dense_forward.ts";
import { LinalgPool } from "../linalg/pool.ts";
import { parseRecipe } from "../pipeline.ts";
import { ProgressReporter } from "../progress.ts";
import { WorkFolder } from "../resume/work_folder.ts";
import { calibrationSequences, tokenizerOf } from "../texts.ts";
import type { CompressOptions, CompressResult } from "../types.ts";
import { WorkSpace } from "../work_space.ts";
import { checkRecoverable, checkRecoverSource } from "./check.ts";
import { type RecoverContext, recoverStep } from "./recover_step.ts";

export interface RecoverArtifactOptions extends Omit<CompressOptions, "recipe"> {
  /** Artifact folder; `source` is the dense model that it was made from. */
  readonly artifact: string;
  readonly recover: NonNullable<RecipeInput["recover"]>;
  readonly evaluate?: RecipeInput["evaluate"];
}

/**
 * @throws {OatmillError} invalid_recipe; invalid_request: the artifact has nothing to train, or comes from another model;
 * conflict (`out` exists, or another run uses `work`), cancelled, storage_failed, and what reading the models throws
 */
export async function recoverArtifact(options: RecoverArtifactOptions): Promise<CompressResult> {
  const artifact = await openArtifact(options.artifact);
  checkRecoverable(artifact);
  const { evaluate } = options;
  const asked = parseRecipe({ recover: options.recover, ...evaluate ? { evaluate } : {} });
  const recipe: Recipe = { ...artifact.header.recipe, recover: asked.recover, evaluate: asked.evaluate };
  const run = { ...options, recipe };
  using work = await WorkFolder.open(run, { ...recipe, ...{ of: artifactVersion(artifact.header) } });
  const done = work.result();
  if (done) return done;
  using progress = new ProgressReporter(options);
  const before = work.journal.follow(() => progress.snapshot());
  if (before) progress.restore(before);
  const header = await recovered(artifact, { options: run, recipe, progress, work });
  const { phases, peakRssBytes, seconds } = progress;
  const result = { artifact: options.out, header, seconds, peakRssBytes, phases };
  await work.publish(result);
  return result;
}

async function recovered(artifact: Artifact, run: CompressionRun): Promise<ArtifactHeader> {
  const { options, recipe, progress, work } = run, recover = recipe.recover!, text = recover.text ?? "self";
  const checkpoint = await progress.time("read", () => openCheckpoint(options.source));
  try {
    checkRecoverSource(checkpoint);
    checkSame(checkpoint, artifact);
    const context: RecoverContext = { ...run, checkpoint };
    const { heldOut, name } = await progress.time(
      "sample",
      () => work.journal.keep("texts", () => heldOutSequences(text, context)),
    );
    const perplexity = await work.journal.keep(
      "before",
      () => progress.time("evaluate", () => perplexities(artifact, { heldOut, name, context })),
    );
    return await recoverStep({ artifact, recover, text, given: [], heldOut, perplexity }, context);
  } finally {
    checkpoint.close();
  }
}

function checkSame({ spec, path }: Checkpoint, artifact: Artifact): void {
  const shapeOf = (of: typeof spec) => [of.blocks, of.hiddenSize, of.vocabSize, linearShapes(of)];
  if (JSON.stringify(shapeOf(spec)) === JSON.stringify(shapeOf(artifact.spec))) return;
  throw new OatmillError(
    "invalid_request",
    `Cannot recover "${artifact.path}" from "${path}": the artifact was made from a model of other sizes`,
  );
}

interface HeldOut {
  readonly heldOut: readonly Int32Array[];
  readonly name: string;
}

/** Of the text to evaluate on, or so many sequences of the text to train on. */
async function heldOutSequences(
  text: string,
  { recipe, checkpoint, options, progress }: RecoverContext,
): Promise<HeldOut> {
  const { evaluate, recover } = recipe, { length: asked, seed } = recover as RecoverRecipe;
  const length = Math.min(asked, checkpoint.spec.contextLength);
  if (evaluate.text !== null) {
    const heldOut = await evaluationSequences(evaluate.text, tokenizerOf(checkpoint), {
      tokens: evaluate.tokens,
      length,
    });
    return { heldOut, name: basename(evaluate.text) };
  }
  const sequences = Math.max(1, Math.floor(evaluate.tokens / length)), { threads, signal } = options;
  const heldOut = await calibrationSequences(checkpoint, { text, sequences, length, seed }, {
    threads,
    signal,
    onStep: (done, total) => progress.report("sample", done, total),
  });
  return { heldOut, name: `held back from ${basename(text)}` };
}

async function perplexities(
  artifact: Artifact,
  { heldOut, name: text, context }: Omit<HeldOut, "heldOut"> & {
    readonly heldOut: readonly Int32Array[];
    readonly context: RecoverContext;
  },
): Promise<NonNullable<ArtifactHeader["perplexity"]>> {
  const { progress, options: { threads, signal } } = context;
  const { perplexity: dense, tokens } = await denseOf(heldOut, context);
  progress.densePerplexity = dense;
  const onProgress = (done: number, total: number) => progress.report("evaluate", done, total);
  return {
    dense,
    compressed: await servedPerplexity(artifact, heldOut, { threads, signal, onProgress }),
    tokens,
    text,
  };
}

async function denseOf(
  heldOut: readonly Int32Array[],
  { checkpoint, work, progress, options }: RecoverContext,
) {
  using space = WorkSpace.open(work.scratch, options.workMemoryBytes);
  using pool = new LinalgPool(work.threads);
  const context = { checkpoint, pool };
  const place = (values: number) => space.place("held-out", values);
  const residual = embed(await readEmbedding(checkpoint), heldOut, place);
  for (let block = 0; block < checkpoint.spec.blocks; block++) {
    progress.checkCancelled();
    await pass(residual, await readBlock(checkpoint, block), { block, context });
  }
  return await densePerplexity(residual, heldOut, context);
}
