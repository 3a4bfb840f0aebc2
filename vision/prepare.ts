/** A decoded image as a model reads it: resized, cropped, rescaled, normalised, in transformers' order. */
import type { Pixels } from "../models/classifier.ts";
import type { RgbImage } from "./rgb_image.ts";
import { MAX_EDGE, type ProcessorConfig, type ResizeTo } from "./processor_config.ts";
import { resample } from "./resample.ts";
import { OatmillError } from "../errors.ts";

/**
 * @returns normalised levels `[3, height, width]`
 * @throws {OatmillError} invalid_image when its sides differ so much that one of them would be longer than 4096 pixels
 */
export function prepareImage(image: RgbImage, config: ProcessorConfig): Pixels {
  return normalised(prepareLevels(image, config), config);
}

/** The 8-bit image before rescaling. */
export function prepareLevels(image: RgbImage, { resize, crop }: ProcessorConfig): RgbImage {
  const resized = resize ? resample(image, ...resizedSize(image, resize.to), resize.how) : image;
  const cropped = crop ? centerCrop(resized, crop) : resized;
  if (Math.max(cropped.width, cropped.height) > MAX_EDGE) throw tooLong(cropped.width, cropped.height);
  return cropped;
}

function resizedSize({ width, height }: RgbImage, to: ResizeTo): [width: number, height: number] {
  if ("width" in to) return [to.width, to.height];
  const short = Math.min(width, height), long = Math.max(width, height);
  let edge = to.shortestEdge;
  if (to.longestEdge && edge * long / short > to.longestEdge) {
    edge = Math.max(1, Math.round(to.longestEdge * short / long));
  }
  const other = Math.trunc(edge * long / short);
  if (other > MAX_EDGE) throw tooLong(width, height);
  return width <= height ? [edge, other] : [other, edge];
}

const tooLong = (width: number, height: number) =>
  new OatmillError(
    "invalid_image",
    `Cannot prepare an image of ${width} x ${height} pixels: a side would be longer than ${MAX_EDGE} pixels; crop it`,
  );

/** What an image is too small for stays black. */
function centerCrop(image: RgbImage, { width, height }: { width: number; height: number }): RgbImage {
  if (image.width === width && image.height === height) return image;
  const left = cropStart(image.width, width), top = cropStart(image.height, height);
  const data = new Uint8Array(3 * width * height);
  const from = Math.max(0, left), end = Math.min(image.width, left + width);
  for (let y = Math.max(0, -top); y < Math.min(height, image.height - top); y++) {
    const row = (y + top) * image.width;
    data.set(image.data.subarray(3 * (row + from), 3 * (row + end)), 3 * (y * width + from - left));
  }
  return { width, height, data };
}

/** Where the crop begins in the image; negative where it goes beyond it: transformers rounds both down. */
const cropStart = (has: number, wants: number) => Math.floor((has - wants) / 2);

function normalised({ width, height, data }: RgbImage, { rescale, normalize }: ProcessorConfig): Pixels {
  const pixels = new Float32Array(data.length), plane = width * height;
  for (let c = 0; c < 3; c++) {
    const values = levelValues(rescale, normalize?.mean[c] ?? 0, normalize?.std[c] ?? 1);
    for (let i = 0; i < plane; i++) pixels[c * plane + i] = values[data[3 * i + c]];
  }
  return { width, height, data: pixels };
}

/** For each of the 256 levels what it becomes. */
const levelValues = (rescale: number | null, mean: number, std: number) =>
  Float32Array.from({ length: 256 }, (_, level) => (level * (rescale ?? 1) - mean) / std);
