/**
 * What every kernel computes, in plain TypeScript: the linear layers on the packed bytes and tiles that kernels read,
 * the others on plain arrays in double precision. The oracle tests compare; nothing else imports this.
 */

import type { ActivationEncoding } from "./abi.ts";
import { fromBf16 } from "./_quantize_row.ts";
import type { KvFormat } from "./kv_layout.ts";
import {
  CHUNK,
  chunkCount,
  denseVectors,
  groupBytes,
  HEADER_BYTES,
  ROWS,
  type Shape2,
  type WeightFormat,
  windowsChunkBytes,
} from "./layout.ts";
import { fromPanels } from "./panels.ts";
import { placedSlots } from "./pack_windows.ts";

/** A quantised tile as in abi.ts. */
export interface Tile {
  readonly batch: number;
  readonly encoding: ActivationEncoding;
  /** `[chunks x 4 windows][batch][16]` */
  readonly xa: Uint8Array;
  readonly xb: Uint8Array;
  /** `[chunks][batch]` */
  readonly xs: Float32Array;
}

/** Result of a linear layer and the sum of the terms' magnitudes, to which its rounding errors relate. */
export interface LinearResult {
  /** `[batch][dOut]` */
  readonly y: Float64Array;
  readonly magnitude: Float64Array;
}

export interface TileOptions {
  readonly cols: number;
  readonly batch: number;
  /** Floats between the rows of x. */
  readonly stride: number;
  readonly blockChunks: number;
  readonly columnScale: Float32Array | null;
  readonly encoding: ActivationEncoding;
}

/** `quantize_bB`, bit for bit. @param x `[batch, stride]` */
export function referenceQuantize(x: Float32Array, options: TileOptions): Tile {
  const { cols, batch, stride, blockChunks, columnScale, encoding } = options;
  const chunks = chunkCount(cols);
  const xa = new Uint8Array(chunks * CHUNK * batch);
  const xb = new Uint8Array(xa.length);
  const xs = new Float32Array(chunks * batch);
  for (let t = 0; t < batch; t++) {
    const value = (c: number) =>
      c >= cols ? 0 : Math.fround(x[t * stride + c] * (columnScale ? columnScale[c] : 1));
    for (let block = 0; block < chunks; block += blockChunks) {
      const n = Math.min(blockChunks, chunks - block);
      let top = 0;
      for (let c = block * CHUNK; c < (block + n) * CHUNK; c++) top = Math.max(top, Math.abs(value(c)));
      const zero = top <= Math.fround(1e-30);
      const inverse = zero ? 0 : Math.fround(encoding.maxCode / top);
      for (let q = block; q < block + n; q++) {
        xs[q * batch + t] = zero ? 0 : Math.fround(top / encoding.maxCode);
      }
      for (let c = 0; c < n * CHUNK; c++) {
        const code = roundToEven(Math.fround(value(block * CHUNK + c) * inverse));
        const byte = code + encoding.offset & 255;
        const base = block * CHUNK * batch;
        xa[base + ((c >> 4) * batch + t) * 16 + (c & 15)] = byte;
        const width = 4 * n;
        xb[base + (c % width * batch + t) * 16 + Math.floor(c / width)] = byte;
      }
    }
  }
  return { batch, encoding, xa, xb, xs };
}

function roundToEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down;
}

/** The signed code a kernel must read from an activation byte, before the offset is taken off. */
const readByte = (byte: number, encoding: ActivationEncoding): number =>
  encoding.offset === 0 ? byte << 24 >> 24 : byte;

/**
 * Linear layer on quantised tiles, from the packed bytes.
 *
 * @param bytes packed `[dOut, dIn]`
 */
export function referenceLinear(
  format: Exclude<WeightFormat, { kind: "f32" }>,
  bytes: Uint8Array,
  shape: Shape2,
  tile: Tile,
): LinearResult {
  const [dOut, dIn] = shape;
  const { batch, encoding, xs } = tile;
  const view = new DataView(fromPanels(format, shape, bytes).buffer);
  const y = new Float64Array(batch * dOut);
  const magnitude = new Float64Array(batch * dOut);
  const chunks = chunkCount(dIn);
  const blockChunks = format.kind === "windows" ? format.blockChunks : 1;
  for (let row = 0; row < dOut; row++) {
    const lane = row % ROWS;
    let at = (row - lane) / ROWS * groupBytes(format, dIn);
    for (let chunk = 0; chunk < chunks; chunk += blockChunks) {
      const n = Math.min(blockChunks, chunks - chunk);
      const codeSum = view.getInt16(at + 2 * lane, true);
      const scale = fromBf16(view.getUint16(at + 8 + 2 * lane, true));
      const places = format.kind === "windows"
        ? windowPlaces(format, view, at + HEADER_BYTES, lane, n)
        : densePlaces(format.kind, view, at + HEADER_BYTES, lane, dIn - chunk * CHUNK);
      for (let t = 0; t < batch; t++) {
        let sum = -encoding.offset * codeSum;
        for (const { view: name, window, index, code } of places) {
          const from = name === "A" ? tile.xa : tile.xb;
          sum += code * readByte(from[((chunk * 4 + window) * batch + t) * 16 + index], encoding);
        }
        const term = sum * scale * xs[chunk * batch + t];
        y[t * dOut + row] += term;
        magnitude[t * dOut + row] += Math.abs(term);
      }
      at += HEADER_BYTES + n * chunkBytes(format);
    }
  }
  return { y, magnitude };
}

function chunkBytes(format: Exclude<WeightFormat, { kind: "f32" }>): number {
  if (format.kind === "windows") return windowsChunkBytes(format);
  return format.kind === "q8" ? 256 : 128;
}

interface Place {
  readonly view: "A" | "B";
  readonly window: number;
  readonly index: number;
  readonly code: number;
}

/** All codes of the chunk's vectors, `left` columns before the end of the row. */
function densePlaces(kind: "q8" | "q4", view: DataView, at: number, lane: number, left: number): Place[] {
  const columns = denseVectors(kind, Math.min(CHUNK, left)) * (kind === "q8" ? 4 : 8);
  return Array.from({ length: columns }, (_, c) => {
    const code = kind === "q8"
      ? view.getInt8(at + (c >> 2) * 16 + 4 * lane + (c & 3))
      : (view.getUint8(at + (c >> 3) * 16 + 4 * lane + (c & 3)) >> (c & 4) & 15) - 8;
    return { view: "A", window: c >> 4, index: c & 15, code };
  });
}

function windowPlaces(
  format: WeightFormat & { kind: "windows" },
  view: DataView,
  at: number,
  lane: number,
  chunks: number,
): Place[] {
  const places: Place[] = [];
  const slots = placedSlots(format), { bits } = format;
  for (let q = 0; q < chunks; q++, at += windowsChunkBytes(format)) {
    for (const { values, indices, shift, ...slot } of slots) {
      const row = at + slot.entries * lane;
      for (let e = row; e < row + slot.entries; e++) {
        const code = bits === 8 ? view.getInt8(e + values) : (view.getUint8(e + values) & 15) - 8;
        const index = view.getUint8(e + indices) >> shift & 15;
        places.push({ view: slot.view, window: 4 * q + slot.window, index, code });
      }
    }
  }
  return places;
}

/** The `f32` linear layer. @param x `[dIn][batch]` (interleaved) */
export function referenceLinearF32(
  bytes: Uint8Array,
  shape: Shape2,
  x: Float32Array,
  batch: number,
): LinearResult {
  const [dOut, dIn] = shape;
  const view = new DataView(fromPanels({ kind: "f32" }, shape, bytes).buffer);
  const y = new Float64Array(batch * dOut);
  const magnitude = new Float64Array(batch * dOut);
  for (let row = 0; row < dOut; row++) {
    const group = (row >> 2) * dIn * 16 + 4 * (row & 3);
    for (let c = 0; c < dIn; c++) {
      const w = view.getFloat32(group + 16 * c, true);
      for (let t = 0; t < batch; t++) {
        y[t * dOut + row] += w * x[c * batch + t];
        magnitude[t * dOut + row] += Math.abs(w * x[c * batch + t]);
      }
    }
  }
  return { y, magnitude };
}

type Row = ArrayLike<number>;
const toArray = (row: Row): number[] => Array.from(row);
const sumOf = (values: number[]): number => values.reduce((a, b) => a + b, 0);

export function referenceRmsnorm(x: Row, weight: Row, eps: number): number[] {
  const k = 1 / Math.sqrt(sumOf(toArray(x).map((v) => v * v)) / x.length + eps);
  return toArray(x).map((v, i) => v * k * weight[i]);
}

/** @param bias null = none */
export function referenceLayernorm(x: Row, weight: Row, bias: Row | null, eps: number): number[] {
  const mean = sumOf(toArray(x)) / x.length;
  const k = 1 / Math.sqrt(sumOf(toArray(x).map((v) => (v - mean) ** 2)) / x.length + eps);
  return toArray(x).map((v, i) => (v - mean) * k * weight[i] + (bias ? bias[i] : 0));
}

/** One head; pairs (i, i + dims / 2); cos and sin of this position `[dims / 2]`. */
export function referenceRope(x: Row, dims: number, cos: Row, sin: Row): number[] {
  const out = toArray(x);
  const half = dims / 2;
  for (let i = 0; i < half; i++) {
    out[i] = x[i] * cos[i] - x[i + half] * sin[i];
    out[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
  return out;
}

/** Rotation by Hadamard matrices (not normalised) of the largest power of 2 that divides the length, in f32. */
function rotate(row: ArrayLike<number>): { readonly rotated: Float32Array; readonly size: number } {
  const rotated = Float32Array.from(row), size = row.length & -row.length;
  for (let h = 1; h < size; h *= 2) {
    for (let i = 0; i < row.length; i++) {
      if (i & h) continue;
      const [a, b] = [rotated[i], rotated[i + h]];
      rotated[i] = a + b;
      rotated[i + h] = a - b;
    }
  }
  return { rotated, size };
}

/** Codes of at most `maxCode` times their scale. */
function roundToCodes(row: Float32Array, maxCode: number): number[] {
  const top = row.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const inverse = Math.fround(top > 1e-30 ? maxCode / top : 0);
  const scale = Math.fround(top > 1e-30 ? top / maxCode : 0);
  return Array.from(row, (x) => (roundToEven(Math.fround(x * inverse)) + 0) * scale); // no -0
}

/** A row of K or V of one KV head as its format stores it: int8 keys are rotated. */
export function referenceStored(format: KvFormat, part: "k" | "v", row: Float32Array): number[] {
  switch (format) {
    case "f32":
      return Array.from(row);
    case "f16":
      return Array.from(row, (x) => Math.f16round(Math.max(-65504, Math.min(65504, x))));
    case "int8":
      return roundToCodes(part === "k" ? rotate(row).rotated : row, 127);
  }
}

/** The row that attention computes with: what is stored, turned back. */
export function referenceKvRow(format: KvFormat, part: "k" | "v", row: Float32Array): number[] {
  const stored = referenceStored(format, part, row);
  return format === "int8" && part === "k" ? turnBack(stored) : stored;
}

/** The query that attention computes with: int8 rotates it and rounds it to 7 bits. */
export function referenceQuery(format: KvFormat, q: Float32Array): number[] {
  return format === "int8" ? turnBack(roundToCodes(rotate(q).rotated, 63)) : Array.from(q);
}

function turnBack(row: readonly number[]): number[] {
  const { rotated, size } = rotate(row);
  return Array.from(rotated, (x) => x / size);
}

/** cap tanh(x / cap); cap 0: x */
export const referenceSoftCap = (x: number, cap: number): number => cap > 0 ? cap * Math.tanh(x / cap) : x;

/** One query head over the keys and values of one KV head, the last `window` of them (0: all), scores capped (0: not). */
export function referenceAttention(
  q: Row,
  keys: readonly Row[],
  values: readonly Row[],
  options: { scale: number; window: number; softCap?: number },
): number[] {
  const from = options.window > 0 ? Math.max(0, keys.length - options.window) : 0;
  const scores = keys.slice(from).map((k) => options.scale * sumOf(toArray(q).map((v, d) => v * k[d])))
    .map((score) => referenceSoftCap(score, options.softCap ?? 0));
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - top));
  const total = sumOf(weights);
  return toArray(q).map((_, d) => sumOf(weights.map((w, j) => w * values[from + j][d])) / total);
}

/** By `kind` of abi.ts `activate`. */
export const REFERENCE_ACTIVATIONS: readonly ((x: number) => number)[] = [
  (x) => x / (1 + Math.exp(-x)),
  (x) => x / 2 * erfc(-x / Math.SQRT2),
  (x) => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  (x) => Math.max(x, 0),
  (x) => x / (1 + Math.exp(-1.702 * x)),
];

/** Complementary error function: Taylor series near 0, continued fraction (modified Lentz) beyond; about 1e-14. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
      term *= -x * x / n;
      sum += term / (2 * n + 1);
    }
    return 1 - 2 / Math.sqrt(Math.PI) * sum;
  }
  let fraction = 0;
  for (let n = 200; n > 0; n--) fraction = n / 2 / (x + fraction);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
}

export function referenceLogSumExp(x: Row, inverseTemperature: number): number {
  const scaled = toArray(x).map((v) => v * inverseTemperature);
  const top = Math.max(...scaled);
  return top + Math.log(sumOf(scaled.map((v) => Math.exp(v - top))));
}
