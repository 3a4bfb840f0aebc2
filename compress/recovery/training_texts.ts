/** What a recovery trains on, and what tells it when to end: neither has text in common with what it is evaluated on. */
import { OatmillError } from "../../errors.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { RecoverRecipe } from "../../models/recipe.ts";
import type { SampleOptions } from "../sampling.ts";
import { calibrationSequences } from "../texts.ts";
import { TextOverlap } from "./text_overlap.ts";

export interface TrainingTexts {
  readonly training: readonly Int32Array[];
  /** Never trained on: their loss says which parameters are the best. */
  readonly validation: readonly Int32Array[];
}

/** Each costs a forward pass at every evaluation: eight are an eighth of the time of 100,000 tokens. */
const VALIDATION_SEQUENCES = 8;
/** Of a short text, for validation. */
const VALIDATION_SHARE = 1 / 4;
/** Sampling of calibration text counts seeds from the recipe's: below this nobody comes. */
const SAMPLED_SEEDS = 2 ** 40;

export interface TrainingRequest {
  readonly recover: RecoverRecipe;
  /** A file, a folder of them, or "self". */
  readonly text: string;
  /** What the model is evaluated on. */
  readonly heldOut: readonly Int32Array[];
  /** Sequences that are there already and may be trained on as well, where they have the length. */
  readonly given: readonly Int32Array[];
}

/**
 * As many sequences as the tokens need, fewer when the text is short.
 * @throws {OatmillError} invalid_recipe: the text cannot be read, or has no two sequences beside what is held out
 */
export async function trainingTexts(
  checkpoint: Checkpoint,
  { recover, text, heldOut, given }: TrainingRequest,
  options: SampleOptions,
): Promise<TrainingTexts> {
  const length = Math.min(recover.length, checkpoint.spec.contextLength);
  const validation = VALIDATION_SEQUENCES, wanted = Math.ceil(recover.tokens / length) + validation;
  const overlap = new TextOverlap(heldOut);
  const usable = (some: readonly Int32Array[]) =>
    some.filter((ids) => ids.length === length && !overlap.has(ids));
  // What is sampled is costly, what is read is not: of a file so many may overlap, each by two of its sequences.
  const reused = text === "self" ? usable(given) : [];
  const spare = text === "self" ? 0 : 2 * heldOut.length;
  const missing = Math.max(0, wanted - reused.length) + spare;
  const seed = text === "self" ? SAMPLED_SEEDS + recover.seed : recover.seed;
  const found = missing === 0
    ? []
    : await calibrationSequences(checkpoint, { text, sequences: missing, length, seed }, options);
  const all = [...usable(found), ...reused].slice(0, wanted);
  if (all.length < 2) {
    throw new OatmillError(
      "invalid_recipe",
      `Cannot recover on "${text}": it has ${all.length} sequences of ${length} tokens beside those held out, must have 2`,
      "recover.text",
    );
  }
  const back = Math.max(1, Math.min(validation, Math.floor(all.length * VALIDATION_SHARE)));
  return { validation: all.slice(0, back), training: all.slice(back) };
}
