/**
 * From an artifact and the dense model to a recovered artifact: texts, training, packing, perplexity as served. Each step
 * that is finished stays finished, however the run ends.
 */
import { basename } from "node:path";
import { type Artifact, isArtifact, openArtifact } from "../../models/formats/artifact.ts";
import { updateHeader } from "../../models/formats/artifact_writer.ts";
import type { ArtifactHeader, Recovery } from "../../models/formats/artifact_header.ts";
import type { RecoverRecipe } from "../../models/recipe.ts";
import type { SourceContext } from "../compression_context.ts";
import { servedPerplexity } from "../evaluation/served_perplexity.ts";
import { shownRecipe } from "../finish_artifact.ts";
import { LinalgPool } from "../linalg/pool.ts";
import { ProgressReporter } from "../progress.ts";
import { WorkSpace } from "../work_space.ts";
import { RECOVER_DEFAULTS, type RecoverOptions } from "./options.ts";
import { readTrainable } from "./read_model.ts";
import { recoverModel } from "./recover.ts";
import { type TrainingTexts, trainingTexts } from "./training_texts.ts";
import type { RecoverProgress, RecoverReport } from "./types.ts";
import { writeRecovered } from "./write_model.ts";

export type RecoverContext = Omit<SourceContext, "pool" | "space" | "blockChunks">;

export interface RecoverStep {
  readonly artifact: Artifact;
  readonly recover: RecoverRecipe;
  /** A file, a folder of them, or "self". */
  readonly text: string;
  /** Sequences of it that are there already and are not held out. */
  readonly given: readonly Int32Array[];
  /** What both models are measured on. */
  readonly heldOut: readonly Int32Array[];
  /** Of the dense model and of the artifact, on that. */
  readonly perplexity: NonNullable<ArtifactHeader["perplexity"]>;
}

/** What is known before there is an artifact. */
export type TextStep = Omit<RecoverStep, "artifact" | "perplexity">;

/** Of a run that had written the recovered artifact's last tensor. */
const WRITTEN = "recovered";

/**
 * Makes `work.recovered`; a recovery that `options.stop` ended is one with the best parameters until then.
 * @throws {OatmillError} invalid_recipe: no text to train on; invalid_request: nothing to train; cancelled, storage_failed
 */
export async function recoverStep(step: RecoverStep, context: RecoverContext): Promise<ArtifactHeader> {
  const { work, progress } = context;
  const isWritten = work.journal.get(WRITTEN) !== null && await isArtifact(work.recovered);
  const header = isWritten ? (await openArtifact(work.recovered)).header : await trained(step, context);
  if (header.recovery?.perplexity) return header;
  const after = await progress.time("evaluate", () => measured(step, context));
  progress.checkCancelled();
  const { dense, compressed: before } = step.perplexity;
  const found: ArtifactHeader = {
    ...header,
    perplexity: { ...step.perplexity, compressed: after },
    recovery: { ...header.recovery!, perplexity: { dense, before, after } },
  };
  await updateHeader(work.recovered, found);
  return found;
}

async function measured(
  { heldOut }: RecoverStep,
  { work, progress, options: { threads, signal } }: RecoverContext,
): Promise<number> {
  const onProgress = (done: number, total: number) => progress.report("evaluate", done, total, "recovered");
  return await servedPerplexity(await openArtifact(work.recovered), heldOut, { threads, signal, onProgress });
}

async function trained(step: RecoverStep, context: RecoverContext): Promise<ArtifactHeader> {
  const { work, progress, options } = context, { artifact, recover } = step;
  await Deno.remove(work.recovered, { recursive: true }).catch(() => {}); // of a run that ended before it said so
  const texts = await progress.time("sample", () => readTexts(step, context));
  const { report, peakRssBytes, model } = await progress.time("recover", () => train(step, texts, context));
  const header = await progress.time("write", () =>
    writeRecovered(artifact, model, {
      out: work.recovered,
      temporary: `${work.recovered}.partial`,
      header: {
        recipe: shownRecipe({ ...artifact.header.recipe, recover }, options),
        recovery: { ...recoveryOf(report, step), peakRssBytes },
        perplexity: null,
        ...options.name === undefined ? {} : { name: options.name },
      },
    }));
  await work.journal.put(WRITTEN, { steps: report.steps });
  return header;
}

/** Chosen once, for all runs of a work folder. @throws {OatmillError} invalid_recipe */
export function readTexts(
  step: TextStep,
  context: RecoverContext,
): Promise<TrainingTexts> {
  const { checkpoint, work, progress, options: { signal, threads } } = context;
  const onStep = (done: number, total: number) => progress.report("sample", done, total);
  const read = () => trainingTexts(checkpoint, step, { threads, signal, onStep });
  return work.journal.keep("recover.texts", read);
}

async function train(
  { artifact, recover }: RecoverStep,
  { training, validation }: TrainingTexts,
  { checkpoint, work, progress, options: { signal, stop, copyShare, workMemoryBytes } }: RecoverContext,
) {
  using memory = new ProgressReporter({}); // of this step alone
  using pool = new LinalgPool(work.threads);
  using space = WorkSpace.open(`${work.scratch}.recover`, workMemoryBytes); // the compression's are full of its own
  const end = () => pool.close();
  signal?.addEventListener("abort", end, { once: true });
  try {
    const model = await readTrainable(artifact, checkpoint);
    const report = await recoverModel({
      model,
      checkpoint,
      sequences: training,
      heldOut: validation,
      options: trainOptions(recover),
      pool,
      space,
      journal: work.journal,
      costShare: copyShare,
      signal: stop,
      onProgress: (p) => reportTraining(p, progress),
    });
    return { model, report, peakRssBytes: memory.peakRssBytes };
  } catch (error) {
    progress.checkCancelled(); // the pool was closed for it
    throw error;
  } finally {
    signal?.removeEventListener("abort", end);
  }
}

/** What the recipe says; the rest is the kind's. */
function trainOptions(
  { kind, train, tokens, learning_rate, batch, length, seed }: RecoverRecipe,
): RecoverOptions {
  const usual = RECOVER_DEFAULTS[kind];
  return {
    ...usual,
    train,
    tokens,
    length,
    seed,
    learningRate: learning_rate ?? usual.learningRate,
    batch: batch ?? usual.batch,
  };
}

function reportTraining(
  { phase, done, total, loss, tokensPerSecond, etaSeconds }: RecoverProgress,
  progress: ProgressReporter,
): void {
  // The dense model's pass has another total: the bar is of the training alone.
  if (phase === "targets") {
    progress.report("recover", 0, total, `the dense model's answers ${10 * Math.floor(10 * done / total)} %`);
    return;
  }
  progress.report("recover", done, total, undefined, {
    ...loss === null ? {} : { loss },
    tokensPerSecond,
    etaSeconds,
  });
}

function recoveryOf(report: RecoverReport, { recover, text }: RecoverStep): Omit<Recovery, "peakRssBytes"> {
  const { kind, tokens, steps, seconds, tokensPerSecond, loss, stopped } = report;
  return {
    kind,
    train: recover.train,
    text: basename(text),
    tokens: Math.round(tokens),
    steps,
    learningRate: trainOptions(recover).learningRate,
    seconds,
    tokensPerSecond,
    loss,
    stopped,
    perplexity: null,
  };
}
