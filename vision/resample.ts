/**
 * PIL's resampling of 8-bit images, level for level: a filter as wide as the reduction (antialiased), weights in fixed
 * point, rows and columns apart with 8 bits between them (Pillow 13, src/libImaging/Resample.c).
 * Image processors were trained through it; another resampler shifts levels.
 */
import type { RgbImage } from "./rgb_image.ts";

/** By PIL's numbers, which `resample` in preprocessor_config.json holds. */
export const RESAMPLING = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] as const;
export type Resampling = (typeof RESAMPLING)[number];

interface Filter {
  /** Half of its width in source pixels when enlarging. */
  readonly support: number;
  readonly weight: (x: number) => number;
}

const sinc = (x: number) => x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
/** Keys' cubic convolution with a = -0.5. */
function cubic(x: number): number {
  const a = -0.5, d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

const FILTERS: Record<Exclude<Resampling, "nearest">, Filter> = {
  lanczos: { support: 3, weight: (x) => x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0 },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
  box: { support: 0.5, weight: (x) => x > -0.5 && x <= 0.5 ? 1 : 0 },
  hamming: {
    support: 1,
    weight: (x) => Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI)) : 0,
  },
};

/** Fraction bits of a weight: 8 for the level and 2 for overshoot stay free in 32. */
const WEIGHT_BITS = 22;

/** For one output position: its first source position, and a weight for each from there on. */
interface Tap {
  readonly first: number;
  readonly weights: Int32Array;
}

/** @param width of the result, at least 1 @param height of the result, at least 1 */
export function resample(image: RgbImage, width: number, height: number, how: Resampling): RgbImage {
  if (how === "nearest") return nearest(image, width, height);
  const widen = (from: RgbImage) =>
    width === from.width ? from : rows(from, taps(from.width, width, FILTERS[how]));
  const heighten = (from: RgbImage) =>
    height === from.height ? from : columns(from, taps(from.height, height, FILTERS[how]));
  return columnsFirst(image, width, height) ? widen(heighten(image)) : heighten(widen(image));
}

/** Pillow 13 takes columns first where far more rows go than columns; before, rows always came first (+-1 level). */
function columnsFirst(image: RgbImage, width: number, height: number): boolean {
  const rowsGone = image.height - height;
  return rowsGone > 0 && rowsGone > 2 * (image.width - width);
}

function taps(from: number, to: number, { support, weight }: Filter): Tap[] {
  const scale = from / to, stretch = Math.max(1, scale), reach = support * stretch;
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(from, Math.trunc(center + reach + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => weight((k + first - center + 0.5) / stretch));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(raw, (w) => fixed(sum === 0 ? w : w / sum)) };
  });
}

const fixed = (w: number) => Math.trunc(w * 2 ** WEIGHT_BITS + (w < 0 ? -0.5 : 0.5));

function rows({ width, height, data }: RgbImage, taps: Tap[]): RgbImage {
  const out = new Uint8Array(3 * taps.length * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (const tap of taps) to = weigh(data, 3 * (y * width + tap.first), 3, tap.weights, out, to);
  }
  return { width: taps.length, height, data: out };
}

function columns({ width, data }: RgbImage, taps: Tap[]): RgbImage {
  const out = new Uint8Array(3 * width * taps.length);
  let to = 0;
  for (const tap of taps) {
    for (let x = 0; x < width; x++) {
      to = weigh(data, 3 * (tap.first * width + x), 3 * width, tap.weights, out, to);
    }
  }
  return { width, height: taps.length, data: out };
}

/** One pixel: the weighted sum of pixels `step` apart, rounded and clipped. @returns where the next one goes */
function weigh(
  data: Uint8Array,
  from: number,
  step: number,
  weights: Int32Array,
  out: Uint8Array,
  to: number,
): number {
  let r = 2 ** (WEIGHT_BITS - 1), g = r, b = r;
  for (let k = 0; k < weights.length; k++, from += step) {
    const w = weights[k];
    r += data[from] * w;
    g += data[from + 1] * w;
    b += data[from + 2] * w;
  }
  out[to] = level(r);
  out[to + 1] = level(g);
  out[to + 2] = level(b);
  return to + 3;
}

const level = (sum: number) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** WEIGHT_BITS)));

function nearest(image: RgbImage, width: number, height: number): RgbImage {
  const data = new Uint8Array(3 * width * height);
  const columns = centers(image.width, width);
  let to = 0;
  for (const y of centers(image.height, height)) {
    for (const x of columns) {
      const from = 3 * (y * image.width + x);
      data.set(image.data.subarray(from, from + 3), to);
      to += 3;
    }
  }
  return { width, height, data };
}

/** Where each output position's middle lies; added up as PIL does, since the sum's rounding decides between two. */
function centers(from: number, to: number): number[] {
  const step = from / to;
  let at = step / 2;
  return Array.from({ length: to }, () => {
    const center = Math.min(from - 1, Math.trunc(at));
    at += step;
    return center;
  });
}
