/** What compression costs, on inputs that it has not seen: perplexities of a decoder, how an encoder's answers differ. */
import { openArtifact } from "../models/formats/artifact.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import type { CompressionContext, SourceContext } from "./compression_context.ts";
import { agreementOf, type Answer, denseAnswers, servedAnswers } from "./evaluation/encoder_agreement.ts";
import { servedPerplexity } from "./evaluation/served_perplexity.ts";
import { densePerplexity, type Residual } from "./forward/dense_forward.ts";
import type { Inputs } from "./inputs.ts";

/** Of the dense model. */
export type DenseQuality =
  | { readonly perplexity: number; readonly tokens: number }
  | { readonly answers: readonly Answer[] };

/** @param heldOut hidden states behind the last block */
export async function denseQuality(
  inputs: Inputs,
  heldOut: Residual,
  context: CompressionContext,
): Promise<DenseQuality> {
  if (inputs.kind === "images" || !context.checkpoint.spec.attention.causal) {
    return { answers: await denseAnswers(heldOut, context.checkpoint) };
  }
  return await densePerplexity(heldOut, inputs.heldOut, context);
}

/** The same, for a run that resumes. */
export const keptDenseQuality = (
  inputs: Inputs,
  heldOut: Residual,
  context: CompressionContext,
): Promise<DenseQuality> =>
  context.work.journal.keep(
    "dense",
    () => context.progress.time("evaluate", () => denseQuality(inputs, heldOut, context)),
  ).then((quality) => told(quality, context));

function told(quality: DenseQuality, { progress }: SourceContext): DenseQuality {
  if ("perplexity" in quality) progress.densePerplexity = quality.perplexity;
  return quality;
}

/** As an earlier run measured it behind the last block; null when none did. */
export function earlierDenseQuality(context: SourceContext): DenseQuality | null {
  const found = context.work.journal.get<DenseQuality>("dense");
  return found && told(found, context);
}

/** Of the artifact, as it will be served. */
export async function servedQuality(
  inputs: Inputs,
  dense: DenseQuality,
  { options: { threads, signal }, work, progress }: SourceContext,
): Promise<Pick<ArtifactHeader, "perplexity" | "agreement">> {
  const artifact = await openArtifact(work.artifact), text = inputs.heldOutName;
  const onProgress = (done: number, total: number) => progress.report("evaluate", done, total);
  const options = { threads, signal, onProgress };
  if ("answers" in dense) {
    if (dense.answers.length === 0) return { perplexity: null, agreement: null };
    const read = inputs.kind === "images"
      ? inputs.heldOut.map((file) => () => inputs.set.read(file))
      : inputs.heldOut.map((ids) => () => Promise.resolve({ ids: [...ids] }));
    return {
      perplexity: null,
      agreement: agreementOf(dense.answers, await servedAnswers(artifact, read, options), text),
    };
  }
  if (inputs.kind === "images") throw new RangeError("Images have no perplexity");
  const compressed = await servedPerplexity(artifact, inputs.heldOut, options);
  return { perplexity: { dense: dense.perplexity, compressed, tokens: dense.tokens, text } };
}
