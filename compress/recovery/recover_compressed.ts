/** The last step of a compression whose recipe says `recover`. */
import { openArtifact } from "../../models/formats/artifact.ts";
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import type { Recipe } from "../../models/recipe.ts";
import type { SourceContext } from "../compression_context.ts";
import { type Inputs, readInputs } from "../inputs.ts";
import { readTexts, recoverStep, type TextStep } from "./recover_step.ts";

/**
 * Chooses the texts before hours of compression, where they are kept for its end.
 * @throws {OatmillError} invalid_recipe: there is no text to train on
 */
export async function prepareRecovery(context: SourceContext): Promise<void> {
  const { progress, recipe, work } = context;
  if (!work.journal.keeps) return;
  const inputs = await progress.time("sample", () => readInputs(context));
  await progress.time("sample", () => readTexts(textStep(inputs, recipe), context));
}

/** @param context of a run whose artifact is written and evaluated. @throws {OatmillError} as `recoverStep` */
export async function recoverCompressed(context: SourceContext): Promise<ArtifactHeader> {
  const { progress, recipe, work } = context;
  const inputs = await progress.time("sample", () => readInputs(context));
  const artifact = await openArtifact(work.artifact), { perplexity } = artifact.header;
  if (!perplexity) throw new RangeError("An artifact is recovered once it is evaluated");
  return await recoverStep({ artifact, perplexity, ...textStep(inputs, recipe) }, context);
}

function textStep(inputs: Inputs, { recover, calibration }: Recipe): TextStep {
  if (inputs.kind !== "tokens" || !recover) throw new RangeError("Only decoders are recovered");
  return {
    recover,
    text: recover.text ?? calibration.text,
    given: recover.text === null ? inputs.calibration : [],
    heldOut: inputs.heldOut,
  };
}
