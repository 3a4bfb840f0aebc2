/** Which image processor an opened model asks for; apart from the decoders, which a server leaves to its worker. */
import { OatmillError } from "../errors.ts";
import type { EncoderModel } from "../models/classifier.ts";
import { parseProcessorConfig, type ProcessorConfig } from "./processor_config.ts";

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
