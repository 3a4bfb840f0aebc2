/** Image files to pixels where nothing waits: command line, calibration, tests. A server asks an `ImageReader`. */
import { OatmillError } from "../errors.ts";
import type { EncoderModel, Pixels } from "../models/classifier.ts";
import { decodeImage } from "./decode.ts";
import { prepareImage } from "./prepare.ts";
import { parseProcessorConfig, type ProcessorConfig } from "./processor_config.ts";

/** @throws {OatmillError} what `decodeImage()` and `prepareImage()` throw */
export async function readImage(bytes: Uint8Array, config: ProcessorConfig, name?: string): Promise<Pixels> {
  return prepareImage(await decodeImage(bytes, name), config);
}

/**
 * How a model wants its images.
 * @throws {OatmillError} invalid_request when it reads none; invalid_config when its folder did not say how
 */
export function processorOf(name: string, encoder: EncoderModel | null): ProcessorConfig {
  if (encoder?.reads !== "images") {
    throw new OatmillError("invalid_request", `The model "${name}" reads text, not images`, "model");
  }
  if (encoder.imageProcessor) return parseProcessorConfig(encoder.imageProcessor);
  throw new OatmillError(
    "invalid_config",
    `Cannot prepare images for the model "${name}": its folder has no preprocessor_config.json`,
    "model",
  );
}
