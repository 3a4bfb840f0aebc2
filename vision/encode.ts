/** Pictures to PNG files. */
import { encodePng } from "./_codecs.ts";
import type { RgbImage } from "./rgb_image.ts";

/** @returns the file, 8 bits a channel, without transparency that would be seen */
export async function pngOf({ width, height, data }: RgbImage): Promise<Uint8Array> {
  const rgba = new Uint8Array(4 * width * height).fill(255);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    rgba.set(data.subarray(from, from + 3), to);
  }
  return await encodePng(rgba, width, height);
}
