/** The last step of a compression whose recipe says `recover`. */
import { openArtifact } from "../../models/formats/artifact.ts";
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import { readInputs } from "../inputs.ts";
import { type RecoverContext, recoverStep } from "./recover_step.ts";
import type { SourceContext } from "../compression_context.ts";

/** @param context of a run whose artifact is written and evaluated. @throws {OatmillError} as `recoverStep` */
export async function recoverCompressed(context: SourceContext): Promise<ArtifactHeader> {
  const { recipe: { recover, calibration }, work, progress } = context;
  const inputs = await progress.time("sample", () => readInputs(context));
  const artifact = await openArtifact(work.artifact), { perplexity } = artifact.header;
  if (inputs.kind !== "tokens" || !recover || !perplexity) {
    throw new RangeError("Only decoders are recovered");
  }
  return await recoverStep({
    artifact,
    recover,
    text: recover.text ?? calibration.text,
    given: recover.text === null ? inputs.calibration : [],
    heldOut: inputs.heldOut,
    perplexity,
  }, context satisfies RecoverContext);
}
