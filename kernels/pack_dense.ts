/** Packers of the dense formats of layout.ts: `f32`, `q8`, `q4`. */

import { type CodeGrid, Q4_GRID, Q8_GRID, quantizeRow } from "./_quantize_row.ts";
import { toPanels } from "./panels.ts";
import {
  CHUNK,
  chunkCount,
  groupBytes,
  groupCount,
  HEADER_BYTES,
  packedBytes,
  ROWS,
  type Shape2,
  type WeightFormat,
} from "./layout.ts";

export interface PackOptions {
  /** Where to write; exactly `packedBytes()` long. A new array when absent. */
  readonly destination?: Uint8Array;
  /** `[dIn]` weights of the squared errors in the search for scales, such as the inputs' mean squares. */
  readonly columnImportance?: Float32Array;
}

/** Where a packer writes its groups, zeroed. @throws {RangeError} when the destination has another length */
export function groupsOf(format: WeightFormat, shape: Shape2, { destination }: PackOptions): Uint8Array {
  const bytes = packedBytes(format, shape);
  if (destination && destination.length !== bytes) {
    throw new RangeError(`Cannot pack [${shape}] into ${destination.length} bytes: must be ${bytes}`);
  }
  return new Uint8Array(bytes);
}

/** @throws {RangeError} when lengths and shape disagree */
export function checkWeights(W: Float32Array, shape: Shape2, { columnImportance }: PackOptions): void {
  if (W.length !== shape[0] * shape[1]) {
    throw new RangeError(`Cannot pack ${W.length} weights as [${shape}]: must be ${shape[0] * shape[1]}`);
  }
  if (columnImportance && columnImportance.length !== shape[1]) {
    throw new RangeError(`Cannot weigh ${shape[1]} columns by ${columnImportance.length} values`);
  }
}

/** Groups as the panels of layout.ts, in the destination or a new array. */
export function asPanels(
  format: WeightFormat,
  groups: Uint8Array,
  shape: Shape2,
  { destination }: PackOptions,
): Uint8Array {
  return toPanels(format, shape, groups, destination ?? new Uint8Array(groups.length));
}

/** @param W `[dOut, dIn]` @returns the `f32` layout */
export function packF32(W: Float32Array, shape: Shape2, options: PackOptions = {}): Uint8Array {
  const [dOut, dIn] = shape;
  checkWeights(W, shape, options);
  const out = groupsOf({ kind: "f32" }, shape, options);
  const group = new Float32Array(dIn * ROWS);
  for (let g = 0; g < groupCount(dOut); g++) {
    group.fill(0);
    for (let r = 0; r < ROWS && 4 * g + r < dOut; r++) {
      const row = (4 * g + r) * dIn;
      for (let c = 0; c < dIn; c++) group[c * ROWS + r] = W[row + c];
    }
    out.set(new Uint8Array(group.buffer), g * group.byteLength);
  }
  return asPanels({ kind: "f32" }, out, shape, options);
}

/**
 * Answers a run of one row: its codes, and the bits of its bf16 scale.
 *
 * @param from first column @param codes `[count]` (may be longer), output
 */
export type RunCoder = (row: number, from: number, count: number, codes: Int8Array) => number;

/** Rounds to nearest, 64 columns of a row at a time. */
function nearestRuns(grid: CodeGrid, W: Float32Array, [, dIn]: Shape2, options: PackOptions): RunCoder {
  const values = new Float32Array(CHUNK);
  const importance = options.columnImportance ?? null;
  return (row, from, count, codes) => {
    values.set(W.subarray(row * dIn + from, row * dIn + from + count));
    const weights = importance ? importance.subarray(from, from + count) : null;
    return quantizeRow(values, weights, count, grid, codes);
  };
}

/** Lays out what `coder` answers for every row's chunks. */
export function packDenseRuns(
  kind: "q8" | "q4",
  coder: RunCoder,
  shape: Shape2,
  options: PackOptions,
): Uint8Array {
  const [dOut, dIn] = shape;
  const format: WeightFormat = { kind }, bits = kind === "q8" ? 8 : 4;
  const out = groupsOf(format, shape, options);
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const chunkBytes = HEADER_BYTES + CHUNK * ROWS * bits / 8;
  const codes = new Int8Array(CHUNK);
  if (bits === 4) fillNibbles(out, groupBytes(format, dIn), chunkBytes);
  for (let row = 0; row < dOut; row++) {
    const r = row % ROWS;
    const group = (row - r) / ROWS * groupBytes(format, dIn);
    for (let q = 0; q < chunkCount(dIn); q++) {
      const from = q * CHUNK;
      const count = Math.min(CHUNK, dIn - from);
      const scale = coder(row, from, count, codes);
      const at = group + q * chunkBytes;
      let sum = 0;
      for (let c = 0; c < count; c++) {
        sum += codes[c];
        if (bits === 8) out[at + HEADER_BYTES + (c >> 2) * 16 + 4 * r + (c & 3)] = codes[c];
        else {
          const byte = at + HEADER_BYTES + (c >> 3) * 16 + 4 * r + (c & 3);
          out[byte] = c & 4 ? out[byte] & 15 | (codes[c] + 8) << 4 : out[byte] & 240 | codes[c] + 8;
        }
      }
      view.setInt16(at + 2 * r, sum, true);
      view.setUint16(at + 8 + 2 * r, scale, true);
    }
  }
  return asPanels(format, out, shape, options);
}

/** Code 0 is nibble 8: padding rows and columns of `q4`. */
function fillNibbles(out: Uint8Array, groupBytes: number, chunkBytes: number): void {
  for (let group = 0; group < out.length; group += groupBytes) {
    const end = group + groupBytes;
    for (let at = group; at < end; at += chunkBytes) {
      out.fill(0x88, at + HEADER_BYTES, Math.min(at + chunkBytes, end));
    }
  }
}

/** @param W `[dOut, dIn]` @returns the `q8` layout: codes of 7 bits, one scale per row and 64 columns */
export function packQ8(W: Float32Array, shape: Shape2, options: PackOptions = {}): Uint8Array {
  checkWeights(W, shape, options);
  return packDenseRuns("q8", nearestRuns(Q8_GRID, W, shape, options), shape, options);
}

/** @param W `[dOut, dIn]` @returns the `q4` layout: codes of 4 bits, one signed scale per row and 64 columns */
export function packQ4(W: Float32Array, shape: Shape2, options: PackOptions = {}): Uint8Array {
  checkWeights(W, shape, options);
  return packDenseRuns("q4", nearestRuns(Q4_GRID, W, shape, options), shape, options);
}
