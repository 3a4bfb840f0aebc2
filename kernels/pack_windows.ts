/** Packer of the window formats `wKq4`, `wKq8` of layout.ts. */

import { quantizeRow } from "./_quantize_row.ts";
import {
  groupBytes,
  HEADER_BYTES,
  Q8_MAX,
  ROWS,
  type Shape2,
  type WeightFormat,
  windowsChunkBytes,
  windowSlots,
} from "./layout.ts";
import { asPanels, groupsOf, type PackOptions } from "./pack_dense.ts";
import {
  blocksOf,
  checkedOptions,
  matcherCache,
  placeAll,
  type WindowMatcher,
  type WindowOptions,
} from "./window_matching.ts";

export interface PackWindowsOptions extends WindowOptions, PackOptions {
  readonly bits: 4 | 8;
}

/** Where a slot's bytes lie in its chunk: 4-bit codes and indices share a byte, 8-bit ones have index vectors. */
export interface SlotBytes {
  readonly values: number;
  /** Byte of the indices and their shift; same as `values` with 4 bits. */
  readonly indices: number;
  readonly shift: 0 | 4;
}

export function slotBytes(bits: 4 | 8, slot: number): SlotBytes {
  if (bits === 4) return { values: 16 * slot, indices: 16 * slot, shift: 4 };
  const pair = (slot >> 1) * 48;
  return { values: pair + 16 + 16 * (slot & 1), indices: pair, shift: slot & 1 ? 4 : 0 };
}

/** Slots of each of a chunk's windows: `[view A windows 0..3, view B windows 0..3]`. */
function slotsOfWindows(windows: number): number[][] {
  const slots: number[][] = Array.from({ length: 8 }, () => []);
  windowSlots(windows).forEach(({ view, window }, slot) => slots[(view === "B" ? 4 : 0) + window].push(slot));
  return slots;
}

/** Writes a row's codes of one block; `codes` by column of the block. */
function writeCodes(
  out: Uint8Array,
  matcher: WindowMatcher,
  codes: Int8Array,
  target: { at: number; lane: number; bits: 4 | 8; chunkBytes: number; slots: number[][] },
): void {
  const { at, lane, bits, chunkBytes, slots } = target;
  const { width, count } = matcher;
  for (let v = 0; v < 2 * width; v++) {
    const isB = v >= width;
    const window = isB ? v - width : v;
    const base = at + (window >> 2) * chunkBytes + 4 * lane;
    const ownSlots = slots[(isB ? 4 : 0) + (window & 3)];
    for (let place = 0; place < count[v]; place++) {
      const column = matcher.column(v, place);
      const index = isB ? (column - window) / width : column & 15;
      const { values, indices, shift } = slotBytes(bits, ownSlots[place >> 2]);
      const e = base + (place & 3);
      if (bits === 4) out[e + values] = codes[column] + 8 | index << 4;
      else {
        out[e + values] = codes[column];
        out[e + indices] |= index << shift;
      }
    }
  }
}

/**
 * Packs the non-zero entries of S exactly where they are; scale per row and block.
 *
 * @param S `[dOut, dIn]`, 0 where dropped
 * @throws {RangeError} when a row's entries do not fit the windows (`windowsNeeded()` tells how many it takes)
 */
export function packWindows(S: Float32Array, shape: Shape2, options: PackWindowsOptions): Uint8Array {
  const { windows, blockChunks } = checkedOptions(S.length, shape, options);
  const { bits, columnImportance } = options;
  if (bits === 8 && windows * 4 * Q8_MAX * blockChunks > 32767) {
    throw new RangeError(
      `Cannot pack blocks of ${blockChunks} chunks: the sum of a row's codes would pass 32767`,
    );
  }
  const format: WeightFormat = { kind: "windows", windows, bits, blockChunks };
  const out = groupsOf(format, S, shape, options);
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const [dOut, dIn] = shape;
  const chunkBytes = windowsChunkBytes(windows, bits);
  const blocks = blocksOf(dIn, blockChunks);
  if (bits === 4) fillCodes(out, blocks, chunkBytes);
  const slots = slotsOfWindows(windows);
  const matcherOf = matcherCache(windows);
  const kept = keptBuffers(blockChunks);
  for (let row = 0; row < dOut; row++) {
    const lane = row % ROWS;
    let at = (row - lane) / ROWS * groupBytes(format, dIn);
    for (const { from, columns, chunks } of blocks) {
      const matcher = matcherOf(chunks);
      if (!placeAll(matcher, S, row * dIn + from, columns)) {
        throw new RangeError(
          `Cannot pack row ${row}, columns from ${from}: entries do not fit ${windows} windows a chunk`,
        );
      }
      const header = quantizeKept(kept, S, row * dIn + from, columns, bits, columnImportance?.subarray(from));
      view.setInt16(at + 2 * lane, header.sum, true);
      view.setUint16(at + 8 + 2 * lane, header.scale, true);
      writeCodes(out, matcher, kept.codes, { at: at + HEADER_BYTES, lane, bits, chunkBytes, slots });
      at += HEADER_BYTES + chunks * chunkBytes;
    }
  }
  return asPanels(format, out, shape, options);
}

/** Free places of 4-bit slots hold code 0, which is nibble 8. */
function fillCodes(out: Uint8Array, blocks: readonly { chunks: number }[], chunkBytes: number): void {
  for (let at = 0; at < out.length;) {
    for (const { chunks } of blocks) {
      out.fill(8, at + HEADER_BYTES, at + HEADER_BYTES + chunks * chunkBytes);
      at += HEADER_BYTES + chunks * chunkBytes;
    }
  }
}

interface KeptBuffers {
  readonly values: Float32Array;
  readonly importance: Float32Array;
  readonly columns: Int32Array;
  readonly keptCodes: Int8Array;
  /** By column of the block. */
  readonly codes: Int8Array;
}

function keptBuffers(blockChunks: number): KeptBuffers {
  const n = blockChunks * 64;
  return {
    values: new Float32Array(n),
    importance: new Float32Array(n),
    columns: new Int32Array(n),
    keptCodes: new Int8Array(n),
    codes: new Int8Array(n),
  };
}

/** Codes of a row's kept entries of one block, by column. */
function quantizeKept(
  kept: KeptBuffers,
  S: Float32Array,
  at: number,
  columns: number,
  bits: 4 | 8,
  importance: Float32Array | undefined,
): { sum: number; scale: number } {
  let count = 0;
  for (let c = 0; c < columns; c++) {
    if (S[at + c] === 0) continue;
    kept.values[count] = S[at + c];
    if (importance) kept.importance[count] = importance[c];
    kept.columns[count++] = c;
  }
  const scale = quantizeRow(kept.values, importance ? kept.importance : null, count, bits, kept.keptCodes);
  let sum = 0;
  for (let i = 0; i < count; i++) sum += kept.codes[kept.columns[i]] = kept.keptCodes[i];
  return { sum, scale };
}
