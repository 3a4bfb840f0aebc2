/** Images to calibrate and to evaluate on: files of a folder, as the model's processor prepares them. */
import { basename, extname, join } from "node:path";
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "../models/checkpoint.ts";
import type { Pixels } from "../models/classifier.ts";
import { decodeImage } from "../vision/decode.ts";
import { prepareImage } from "../vision/prepare.ts";
import { parseProcessorConfig, type ProcessorConfig } from "../vision/processor_config.ts";
import { filesOf } from "./calibration_source.ts";
import { seededRandom, shuffled } from "./random.ts";

const IMAGES = [".png", ".jpg", ".jpeg", ".webp"];

/** Decoded one by one, whenever they are asked for. */
export class ImageSet {
  #config: ProcessorConfig | null = null;
  /** Of all images: one graph takes them through the blocks. */
  #size: Pick<Pixels, "width" | "height"> | null = null;

  constructor(readonly model: Pick<Checkpoint, "imageProcessor" | "path">) {}

  /**
   * @throws {OatmillError} invalid_config: the model does not say how images are prepared; what decoding and preparing throw;
   * invalid_recipe: its size is not that of the others
   */
  async read(path: string): Promise<Pixels> {
    const config = this.#config ??= this.#readConfig();
    const pixels = prepareImage(await decodeImage(await Deno.readFile(path), basename(path)), config);
    const { width, height } = this.#size ??= pixels;
    if (pixels.width === width && pixels.height === height) return pixels;
    throw new OatmillError(
      "invalid_recipe",
      `Cannot calibrate on "${path}": prepared it has ${pixels.width} x ${pixels.height} pixels, the first image ` +
        `${width} x ${height}; preprocessor_config.json must crop them to one size`,
      "calibration.text",
    );
  }

  #readConfig(): ProcessorConfig {
    const { imageProcessor, path } = this.model;
    if (imageProcessor) return parseProcessorConfig(imageProcessor);
    throw new OatmillError(
      "invalid_config",
      `Cannot read images for "${path}": preprocessor_config.json is missing, which says how they become pixels`,
    );
  }
}

/**
 * Image files below a folder, in random order; of one with a part `train` that part.
 * @param param the field of the recipe that names the folder
 * @throws {OatmillError} invalid_recipe: it has no images, or is "self": models make up text alone
 */
export async function imageFiles(
  folder: string,
  { count, seed, param }: { readonly count: number; readonly seed: number; readonly param: string },
): Promise<string[]> {
  if (folder === "self") {
    throw new OatmillError(
      "invalid_recipe",
      `The model reads images and cannot make up any: ${param} must be a folder of images`,
      param,
    );
  }
  const part = await isFolder(join(folder, "train")) ? join(folder, "train") : folder;
  const isImage = (path: string) => IMAGES.includes(extname(path).toLowerCase());
  const images = isImage(part) ? [part] : (await filesOf(part, param)).filter(isImage);
  if (images.length > 0) return shuffled(images, seededRandom(seed)).slice(0, count);
  throw new OatmillError(
    "invalid_recipe",
    `Cannot calibrate on "${folder}": it must be a folder with ${
      IMAGES.join(", ")
    } files, the model reads images`,
    param,
  );
}

const isFolder = (path: string): Promise<boolean> =>
  Deno.stat(path).then(({ isDirectory }) => isDirectory, () => false);
