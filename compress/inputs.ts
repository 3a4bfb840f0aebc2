/** What a compression works on: token sequences or images, to calibrate with and to evaluate on. */
import { basename } from "node:path";
import { positionRows } from "../models/encoder_spec.ts";
import { readsTokens } from "../models/spec.ts";
import { imageFiles, ImageSet } from "./calibration_images.ts";
import type { SourceContext } from "./compression_context.ts";
import { needsCalibration } from "./recipe_needs.ts";
import { readTexts, type Texts } from "./texts.ts";

/** Files; the set decodes them. */
export interface Images {
  readonly kind: "images";
  readonly set: ImageSet;
  readonly calibration: readonly string[];
  readonly heldOut: readonly string[];
  readonly heldOutName: string;
}

export type Inputs = Texts & { readonly kind: "tokens" } | Images;

/** @throws {OatmillError} as {@linkcode readTexts}; invalid_recipe, invalid_config: images that are needed cannot be read */
export async function readInputs(context: SourceContext): Promise<Inputs> {
  const { spec } = context.checkpoint;
  if (readsTokens(spec)) {
    return { kind: "tokens", ...await context.work.journal.keep("texts", () => readTexts(context)) };
  }
  const images = await readImages(context);
  context.progress.report("sample", images.calibration.length, images.calibration.length);
  return images;
}

async function readImages({ recipe, checkpoint }: SourceContext): Promise<Images> {
  const { calibration: { text, sequences, seed }, evaluate } = recipe, { patches } = checkpoint.spec.encoder!;
  const wanted = Math.max(1, Math.floor(evaluate.tokens / positionRows(patches!)));
  const needed = needsCalibration(recipe) ? sequences : 0, back = evaluate.text === null ? wanted : 0;
  const set = new ImageSet(checkpoint);
  const from = (folder: string, count: number, param: string) => imageFiles(folder, { count, seed, param });
  // Nothing is needed, and nothing can be made up to evaluate on.
  const none = needed + back === 0 || (text === "self" && needed === 0);
  const found = none ? [] : await from(text, needed + back, "calibration.text");
  // Of few images at most half are held back: a calibration needs some too.
  const share = needed === 0 ? 1 : Math.min(0.5, back / (needed + back));
  const kept = found.length < needed + back ? Math.floor(found.length * share) : back;
  const calibration = found.slice(0, found.length - kept);
  return {
    kind: "images",
    set,
    calibration: needed > 0 ? calibration : [],
    heldOut: evaluate.text === null
      ? found.slice(found.length - kept)
      : await from(evaluate.text, wanted, "evaluate.text"),
    heldOutName: evaluate.text ? basename(evaluate.text) : `held back from ${basename(text)}`,
  };
}
