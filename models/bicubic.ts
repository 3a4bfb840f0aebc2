/** Tables of positions brought to another grid, with PyTorch's bicubic interpolation (corners not aligned). */

/** What a value at one place is made of: `weights[k]` of the source's `indices[k]`. */
interface Taps {
  readonly indices: readonly number[];
  readonly weights: readonly number[];
}

export interface Grid {
  readonly rows: number;
  readonly columns: number;
}

/**
 * @param table `[from.rows, from.columns, width]`
 * @param antialias the filter is as wide as the step where the grid shrinks
 * @returns `[to.rows, to.columns, width]`
 */
export function resizeGrid(
  table: Float32Array,
  { from, to, antialias }: { readonly from: Grid; readonly to: Grid; readonly antialias: boolean },
): Float32Array<ArrayBuffer> {
  const width = table.length / (from.rows * from.columns);
  const taps = antialias ? smoothTaps : sharpTaps;
  const across = taps(from.columns, to.columns), down = taps(from.rows, to.rows);
  const narrow = new Float64Array(from.rows * to.columns * width);
  for (let row = 0; row < from.rows; row++) {
    across.forEach((tap, column) =>
      mix(table, row * from.columns, tap, {
        apart: 1,
        out: narrow.subarray((row * to.columns + column) * width),
        width,
      })
    );
  }
  const out = new Float64Array(to.rows * to.columns * width);
  down.forEach((tap, row) => {
    for (let column = 0; column < to.columns; column++) {
      const at = out.subarray((row * to.columns + column) * width);
      mix(narrow, column, tap, { apart: to.columns, out: at, width });
    }
  });
  return Float32Array.from(out);
}

/** Adds what a place is made of; entry k of the source stands `apart` entries after entry k - 1. */
function mix(
  source: Float32Array | Float64Array,
  first: number,
  { indices, weights }: Taps,
  { apart, out, width }: { readonly apart: number; readonly out: Float64Array; readonly width: number },
): void {
  indices.forEach((index, k) => {
    const at = (first + index * apart) * width;
    for (let i = 0; i < width; i++) out[i] += weights[k] * source[at + i];
  });
}

/** Keys's cubic convolution: a is -0.75 in the plain filter, -0.5 in the smooth one. */
function cubic(x: number, a: number): number {
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

/** Four neighbours; those outside are the nearest inside. */
function sharpTaps(from: number, to: number): Taps[] {
  return Array.from({ length: to }, (_, i) => {
    const place = (i + 0.5) * from / to - 0.5, left = Math.floor(place);
    const around = [left - 1, left, left + 1, left + 2];
    return {
      indices: around.map((at) => Math.min(from - 1, Math.max(0, at))),
      weights: around.map((at) => cubic(place - at, -0.75)),
    };
  });
}

/** All that the filter reaches inside, with weights that add up to 1. */
function smoothTaps(from: number, to: number): Taps[] {
  const step = from / to, reach = 2 * Math.max(1, step);
  return Array.from({ length: to }, (_, i) => {
    const center = (i + 0.5) * step;
    const first = Math.max(0, Math.floor(center - reach + 0.5)),
      end = Math.min(from, Math.floor(center + reach + 0.5));
    const indices = Array.from({ length: end - first }, (_, k) => first + k);
    const raw = indices.map((at) => cubic((at + 0.5 - center) / Math.max(1, step), -0.5));
    const sum = raw.reduce((a, b) => a + b, 0);
    return { indices, weights: raw.map((w) => w / sum) };
  });
}
