/** A decoded image in sRGB as its file stores it: `[height, width, 3]`, 0..255. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}
