/**
 * JPEG, PNG and WebP files to RGB, as PIL's `ImageOps.exif_transpose(Image.open(file)).convert("RGB")` has them, which is
 * what transformers reads images with: transparency dropped without blending, colour profiles left aside, an
 * animation's first frame. The one file that knows the decoders. It computes for up to a second: on a server ask an
 * `ImageReader`, which does it in a worker.
 */
import { decodeJpeg, decodePng, decodeWebp } from "./_codecs.ts";
import { brokenImage, type ImageFormat, readImageHeader } from "./image_header.ts";
import { oriented } from "./orientation.ts";
import type { RgbImage } from "./rgb_image.ts";
import { type FirstFrame, firstFrame } from "./_webp_header.ts";

const DECODERS: Record<ImageFormat, (bytes: Uint8Array) => Promise<RgbImage>> = {
  jpeg: decodeJpeg,
  png: decodePng,
  webp: async (bytes) => {
    const frame = firstFrame(bytes);
    return frame ? onCanvas(await decodeWebp(frame.file), frame) : await decodeWebp(bytes);
  },
};

/**
 * @param name what messages call the image
 * @throws {OatmillError} what `readImageHeader()` throws; invalid_image when the file is truncated or broken
 */
export async function decodeImage(bytes: Uint8Array, name = "the image"): Promise<RgbImage> {
  const { format, orientation } = readImageHeader(bytes, name);
  let image: RgbImage;
  try {
    image = await DECODERS[format](bytes);
  } catch (cause) {
    throw brokenImage(name, format, "it is truncated or damaged", cause);
  }
  return oriented(image, orientation);
}

/** What the first frame leaves free is black. */
function onCanvas(image: RgbImage, { canvas, x, y }: FirstFrame): RgbImage {
  const { width, height } = canvas;
  const data = new Uint8Array(3 * width * height);
  const columns = Math.max(0, Math.min(image.width, width - x));
  for (let row = 0; row < Math.min(image.height, height - y); row++) {
    const from = 3 * row * image.width;
    data.set(image.data.subarray(from, from + 3 * columns), 3 * ((y + row) * width + x));
  }
  return { width, height, data };
}
