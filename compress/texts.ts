/** The text a compression works on: token sequences to calibrate with, and others to evaluate on. */
import { basename } from "node:path";
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "../models/checkpoint.ts";
import { packDense } from "../models/pack_dense.ts";
import { loadTokenizer, type Tokenizer } from "../models/tokenizer.ts";
import { evaluationSequences, type SequenceRequest, textSequences } from "./calibration.ts";
import type { SourceContext } from "./compression_context.ts";
import { needsCalibration } from "./recipe_needs.ts";
import { type SampleOptions, sampleSequences } from "./sampling.ts";

export interface Texts {
  /** Empty when nothing asks for statistics. */
  readonly calibration: readonly Int32Array[];
  readonly heldOut: readonly Int32Array[];
  readonly heldOutName: string;
}

/**
 * Calibration and held-out sequences; the default held-out text is a part of the calibration source held back.
 * @throws {OatmillError} invalid_recipe: a text cannot be read or is too short, invalid_tokenizer: the model has none
 */
export async function readTexts(
  { recipe, checkpoint, progress, options }: SourceContext,
): Promise<Texts> {
  const { calibration: wanted, evaluate } = recipe;
  const length = Math.min(wanted.length, checkpoint.spec.contextLength);
  const heldBack = evaluate.text === null ? Math.max(1, Math.floor(evaluate.tokens / length)) : 0;
  const needed = needsCalibration(recipe) ? wanted.sequences : 0;
  // Nothing is needed, and nothing can be made up to evaluate on.
  if (!checkpoint.spec.attention.causal && wanted.text === "self" && needed === 0 && evaluate.text === null) {
    return { calibration: [], heldOut: [], heldOutName: "" };
  }
  const request = { text: wanted.text, sequences: needed + heldBack, length, seed: wanted.seed };
  const found = request.sequences === 0 ? [] : await calibrationSequences(checkpoint, request, {
    threads: options.threads,
    signal: options.signal,
    onStep: (done, total) => progress.report("sample", done, total),
  });
  // A short text is shared in the same proportion, with at least one sequence each.
  const back = Math.min(
    heldBack,
    Math.max(+(heldBack > 0), Math.round(found.length * heldBack / request.sequences)),
  );
  const calibration = found.slice(0, found.length - back);
  progress.report("sample", found.length, request.sequences);
  if (needed > 0 && calibration.length === 0) {
    throw new OatmillError(
      "invalid_recipe",
      `Cannot calibrate on "${wanted.text}": it has ${found.length} sequences of ${length} tokens, must have 2`,
      "calibration.text",
    );
  }
  const heldOut = evaluate.text === null
    ? found.slice(found.length - back)
    : await evaluationSequences(evaluate.text, tokenizerOf(checkpoint), { tokens: evaluate.tokens, length });
  return {
    calibration,
    heldOut,
    heldOutName: evaluate.text ? basename(evaluate.text) : `held back from ${basename(wanted.text)}`,
  };
}

const samplesNothing = () =>
  new OatmillError(
    "invalid_recipe",
    "The model is an encoder and cannot write any text: calibration.text must be a text file or a folder of them",
    "calibration.text",
  );

/**
 * Sequences of a text, or of what the model itself says with text `self`.
 * @throws {OatmillError} as {@linkcode readTexts}
 */
export function calibrationSequences(
  checkpoint: Checkpoint,
  { text, ...request }: SequenceRequest & { readonly text: string },
  options: SampleOptions,
): Promise<Int32Array[]> {
  if (text === "self" && !checkpoint.spec.attention.causal) throw samplesNothing();
  if (text === "self") return sampleSequences(packDense(checkpoint, { values: "int8" }), request, options);
  const tokenizer = () => tokenizerOf(checkpoint);
  return textSequences(text, { tokenizer, vocabSize: checkpoint.spec.vocabSize }, request);
}

/** @throws {OatmillError} invalid_tokenizer: the model has none */
export function tokenizerOf({ tokenizerFiles, path }: Checkpoint): Tokenizer {
  if (tokenizerFiles) return loadTokenizer(tokenizerFiles);
  throw new OatmillError(
    "invalid_tokenizer",
    `Cannot read calibration text: "${path}" has no tokenizer, use calibration text "self"`,
  );
}
