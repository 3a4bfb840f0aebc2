/** `inspect --rollout`: what a compressed model of images looks at, and what its S and its L look at alone. */
import { basename } from "node:path";
import { attentionRollout, type Rollout, type RolloutPart } from "../compress/insight/rollout.ts";
import { LinalgRuntime } from "../compress/linalg/runtime.ts";
import { OatmillError } from "../errors.ts";
import { DenseWeights } from "../export/dense_weights.ts";
import type { Artifact } from "../models/formats/artifact.ts";
import { openTensors } from "../models/formats/artifact_tensors.ts";
import { decodeImage } from "../vision/decode.ts";
import { prepareImage, prepareLevels } from "../vision/prepare.ts";
import { parseProcessorConfig } from "../vision/processor_config.ts";
import type { RgbImage } from "../vision/rgb_image.ts";

export interface ArtifactRollout extends Rollout {
  /** The file's name. */
  readonly image: string;
  /** As the model reads it, before it is normalised. */
  readonly levels: RgbImage;
}

export const PART_TITLES: Readonly<Record<RolloutPart, string>> = {
  whole: "S + L",
  sparse: "S alone",
  low_rank: "L alone",
};

/** @throws {OatmillError} invalid_request: the model reads no images; what reading the image throws */
export async function artifactRollout(artifact: Artifact, path: string): Promise<ArtifactRollout> {
  const { imageProcessor } = artifact;
  if (!imageProcessor) {
    throw new OatmillError(
      "invalid_request",
      `Cannot show what "${artifact.name}" looks at: it reads no images`,
      "rollout",
    );
  }
  const config = parseProcessorConfig(imageProcessor);
  const image = await decodeImage(await Deno.readFile(path), basename(path));
  const linalg = await LinalgRuntime.create(navigator.hardwareConcurrency);
  try {
    await using reader = await openTensors(artifact);
    const weights = new DenseWeights(artifact, { reader, linalg, sourceConfig: null });
    const rollout = await attentionRollout(prepareImage(image, config), weights, linalg);
    return { ...rollout, image: basename(path), levels: prepareLevels(image, config) };
  } finally {
    await linalg.close();
  }
}

/** For `--json`. */
export const rolloutResult = ({ image, rows, columns, parts }: ArtifactRollout) => ({
  image,
  rows,
  columns,
  parts: parts.map(({ part, label, correlation, map }) => ({ part, label, correlation, map })),
});

export const rolloutLines = ({ image, parts }: ArtifactRollout): string[] =>
  parts.map(({ part, label, correlation }) =>
    `rollout      ${image}, ${PART_TITLES[part]}: ${
      label === null ? "" : `${label}, `
    }correlation with S + L ${correlation.toFixed(3)}`
  );
