/** Image files to pixels where nothing waits: command line, calibration, tests. A server asks an `ImageReader`. */
import type { Pixels } from "../models/classifier.ts";
import { decodeImage } from "./decode.ts";
import { prepareImage } from "./prepare.ts";
import type { ProcessorConfig } from "./processor_config.ts";

/** @throws {OatmillError} what `decodeImage()` and `prepareImage()` throw */
export async function readImage(bytes: Uint8Array, config: ProcessorConfig, name?: string): Promise<Pixels> {
  return prepareImage(await decodeImage(bytes, name), config);
}
