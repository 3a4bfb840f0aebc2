/** Dense values of a packed layer, as its kernel sees them: code x scale. */

import { fromBf16 } from "./_quantize_row.ts";
import { type CodedMatrix, runCount } from "./coded_matrix.ts";
import {
  CHUNK,
  groupBytes,
  HEADER_BYTES,
  packedBytes,
  ROWS,
  type Shape2,
  type WeightFormat,
  windowsChunkBytes,
} from "./layout.ts";
import { runColumnsOf } from "./pack_coded.ts";
import { fromPanels } from "./panels.ts";
import { placedSlots } from "./pack_windows.ts";
import { blocksOf } from "./window_matching.ts";

/**
 * One weight of a packed layer. `window` numbers the windows of the column's block, those of view B after those of view A;
 * -1 in formats without windows.
 */
export type VisitWeight = (row: number, column: number, code: number, scale: number, window: number) => void;

/** Calls `visit` for every stored place inside the shape (free places of windows too: code 0). */
export function visitWeights(
  format: WeightFormat,
  bytes: Uint8Array,
  shape: Shape2,
  visit: VisitWeight,
): void {
  if (bytes.length !== packedBytes(format, shape)) {
    throw new RangeError(
      `Cannot unpack ${bytes.length} bytes as [${shape}]: must be ${packedBytes(format, shape)}`,
    );
  }
  const [dOut, dIn] = shape;
  const view = new DataView(fromPanels(format, shape, bytes).buffer);
  for (let row = 0; row < dOut; row++) {
    const lane = row % ROWS;
    const at = (row - lane) / ROWS * groupBytes(format, dIn);
    const inside: VisitWeight = (_, column, code, scale, window) => {
      if (column < dIn) visit(row, column, code, scale, window);
    };
    if (format.kind === "f32") {
      for (let c = 0; c < dIn; c++) visit(row, c, view.getFloat32(at + 4 * (ROWS * c + lane), true), 1, -1);
    } else if (format.kind === "windows") visitWindows(format, view, { at, lane, dIn }, inside);
    else visitDense(format.kind === "q8" ? 8 : 4, view, { at, lane, dIn }, inside);
  }
}

interface Row {
  readonly at: number;
  readonly lane: number;
  readonly dIn: number;
}

function visitDense(bits: 4 | 8, view: DataView, { at, lane, dIn }: Row, visit: VisitWeight): void {
  for (let from = 0; from < dIn; from += CHUNK) {
    const scale = fromBf16(view.getUint16(at + 8 + 2 * lane, true));
    const row = at + HEADER_BYTES + 4 * lane;
    for (let c = 0; c < CHUNK && from + c < dIn; c++) {
      const code = bits === 8
        ? view.getInt8(row + (c >> 2) * 16 + (c & 3))
        : (view.getUint8(row + (c >> 3) * 16 + (c & 3)) >> (c & 4) & 15) - 8;
      visit(0, from + c, code, scale, -1);
    }
    at += HEADER_BYTES + CHUNK * ROWS * bits / 8;
  }
}

function visitWindows(
  format: WeightFormat & { kind: "windows" },
  view: DataView,
  { at, lane, dIn }: Row,
  visit: VisitWeight,
): void {
  const { bits, blockChunks } = format;
  const slots = placedSlots(format);
  const chunkBytes = windowsChunkBytes(format);
  for (const { from, chunks } of blocksOf(dIn, blockChunks)) {
    const width = 4 * chunks;
    const scale = fromBf16(view.getUint16(at + 8 + 2 * lane, true));
    at += HEADER_BYTES;
    for (let q = 0; q < chunks; q++, at += chunkBytes) {
      for (const { values, indices, shift, ...slot } of slots) {
        const isA = slot.view === "A", window = slot.window + 4 * q, row = at + slot.entries * lane;
        for (let e = row; e < row + slot.entries; e++) {
          const code = bits === 8 ? view.getInt8(e + values) : (view.getUint8(e + values) & 15) - 8;
          const index = view.getUint8(e + indices) >> shift & 15;
          const column = isA ? 16 * window + index : window + index * width;
          visit(0, from + column, code, scale, isA ? window : width + window);
        }
      }
    }
  }
}

/** @returns `[dOut, dIn]` */
export function unpack(format: WeightFormat, bytes: Uint8Array, shape: Shape2): Float32Array {
  const W = new Float32Array(shape[0] * shape[1]);
  visitWeights(format, bytes, shape, (row, column, code, scale) => {
    if (code !== 0) W[row * shape[1] + column] += code * scale;
  });
  return W;
}

/** Codes and scales as {@linkcode packCoded} took them; a run that stores nothing has the scale 0. */
export function unpackCoded(
  format: Exclude<WeightFormat, { kind: "f32" }>,
  bytes: Uint8Array,
  shape: Shape2,
): CodedMatrix {
  const [rows, cols] = shape, runColumns = runColumnsOf(format), runs = runCount(cols, runColumns);
  const codes = new Int8Array(rows * cols), scales = new Float32Array(rows * runs);
  visitWeights(format, bytes, shape, (row, column, code, scale) => {
    scales[row * runs + Math.floor(column / runColumns)] = scale;
    if (code !== 0) codes[row * cols + column] = code;
  });
  return { rows, cols, codes, scales, runColumns };
}
