/** Turns an image the way its EXIF orientation says it is to be seen. */
import type { RgbImage } from "./rgb_image.ts";

/** From where in the stored image (last column and row w, h) the seen pixel (x, y) comes, by orientation 2 to 8. */
const SOURCE: Record<number, (x: number, y: number, w: number, h: number) => [x: number, y: number]> = {
  2: (x, y, w) => [w - x, y],
  3: (x, y, w, h) => [w - x, h - y],
  4: (x, y, _, h) => [x, h - y],
  5: (x, y) => [y, x],
  6: (x, y, _, h) => [y, h - x],
  7: (x, y, w, h) => [w - y, h - x],
  8: (x, y, w) => [w - y, x],
};

/** @param orientation 1 to 8, EXIF 2.32, tag 0x0112; 5 to 8 exchange width and height */
export function oriented(image: RgbImage, orientation: number): RgbImage {
  const source = SOURCE[orientation];
  if (!source) return image;
  const [width, height] = orientation >= 5 ? [image.height, image.width] : [image.width, image.height];
  const data = new Uint8Array(image.data.length);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [sx, sy] = source(x, y, image.width - 1, image.height - 1);
      const from = 3 * (sy * image.width + sx);
      for (let c = 0; c < 3; c++) data[to++] = image.data[from + c];
    }
  }
  return { width, height, data };
}
