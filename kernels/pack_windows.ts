/** Packer of the window formats `wKq4`, `wKq8`, `hKq4`, `hKq8` of layout.ts. */

import { Q4_GRID, Q8_GRID, quantizeRow } from "./_quantize_row.ts";
import {
  CHUNK,
  groupBytes,
  HEADER_BYTES,
  Q8_MAX,
  ROWS,
  type Shape2,
  type WindowCount,
  windowsChunkBytes,
  type WindowSlot,
  windowSlots,
} from "./layout.ts";
import { asPanels, checkWeights, groupsOf, type PackOptions, type RunCoder } from "./pack_dense.ts";
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

/** A slot and where its bytes lie in a group's chunk: 4-bit codes and indices share a byte, 8-bit ones have index vectors. */
export interface PlacedSlot extends WindowSlot {
  readonly values: number;
  /** Byte of the indices and their shift; same as `values` with 4 bits. */
  readonly indices: number;
  readonly shift: 0 | 4;
}

/** The slots of a group's chunk, in order. A row's entries in a slot lie side by side, rows one after the other. */
export function placedSlots({ bits, ...count }: WindowCount & { readonly bits: 4 | 8 }): PlacedSlot[] {
  let at = 0;
  return windowSlots(count).map((slot, s, slots) => {
    const size = ROWS * slot.entries;
    if (bits === 4) {
      at += size;
      return { ...slot, values: at - size, indices: at - size, shift: 4 };
    }
    // A pair is two of one size: halves come in even numbers, and before the others.
    const odd = (s & 1) === 1;
    const indices = at;
    if (odd || s + 1 === slots.length) at += odd ? 3 * size : 2 * size;
    return { ...slot, values: indices + size + (odd ? size : 0), indices, shift: odd ? 4 : 0 };
  });
}

/** Slots of each of a chunk's windows: `[view A windows 0..3, view B windows 0..3]`. */
function slotsOfWindows(slots: readonly PlacedSlot[]): PlacedSlot[][] {
  const of = (view: "A" | "B") =>
    [0, 1, 2, 3].map((w) => slots.filter((s) => s.view === view && s.window === w));
  return [...of("A"), ...of("B")];
}

/** Writes a row's codes of one block; `codes` by column of the block. */
function writeCodes(
  out: Uint8Array,
  matcher: WindowMatcher,
  codes: Int8Array,
  target: { at: number; lane: number; bits: 4 | 8; chunkBytes: number; slots: PlacedSlot[][] },
): void {
  const { at, lane, bits, chunkBytes, slots } = target;
  const { width, count } = matcher;
  for (let v = 0; v < 2 * width; v++) {
    const isB = v >= width;
    const window = isB ? v - width : v;
    const base = at + (window >> 2) * chunkBytes;
    const ownSlots = slots[(isB ? 4 : 0) + (window & 3)];
    for (let place = 0; place < count[v]; place++) {
      const column = matcher.column(v, place);
      const index = isB ? (column - window) / width : column & 15;
      // Slots of one window are of one size.
      const { values, indices, shift, entries } = ownSlots[Math.floor(place / ownSlots[0].entries)];
      const e = base + entries * lane + place % entries;
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
 * @throws {RangeError} when a row's entries do not fit the windows (`slotsNeeded()` tells which it takes)
 */
export function packWindows(S: Float32Array, shape: Shape2, options: PackWindowsOptions): Uint8Array {
  checkedOptions(S.length, shape, options);
  checkWeights(S, shape, options);
  return packWindowRuns(S, nearestKept(S, shape, options), shape, options);
}

/**
 * Lays out what `coder` answers for every row's blocks.
 *
 * @param entries `[dOut, dIn]`, 0 where nothing is stored
 * @throws {RangeError} like {@linkcode packWindows}
 */
export function packWindowRuns(
  entries: Float32Array | Int8Array,
  coder: RunCoder,
  shape: Shape2,
  options: PackWindowsOptions,
): Uint8Array {
  const { windows, blockChunks, halves } = checkedOptions(entries.length, shape, options);
  const { bits } = options;
  if (bits === 8 && windows * 4 * Q8_MAX * blockChunks > 32767) {
    throw new RangeError(
      `Cannot pack blocks of ${blockChunks} chunks: the sum of a row's codes would pass 32767`,
    );
  }
  const format = { kind: "windows", windows, bits, blockChunks, halves } as const;
  const out = groupsOf(format, shape, options);
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  const [dOut, dIn] = shape;
  const chunkBytes = windowsChunkBytes(format);
  const blocks = blocksOf(dIn, blockChunks);
  if (bits === 4) fillCodes(out, blocks, chunkBytes);
  const slots = slotsOfWindows(placedSlots(format));
  const matcherOf = matcherCache(format);
  const codes = new Int8Array(blockChunks * CHUNK); // by column of the block; read at stored entries alone
  for (let row = 0; row < dOut; row++) {
    const lane = row % ROWS;
    let at = (row - lane) / ROWS * groupBytes(format, dIn);
    for (const { from, columns, chunks } of blocks) {
      const matcher = matcherOf(chunks), first = row * dIn + from;
      if (!placeAll(matcher, entries, first, columns)) {
        throw new RangeError(
          `Cannot pack row ${row}, columns from ${from}: entries do not fit ${windows} windows a chunk`,
        );
      }
      const scale = coder(row, from, columns, codes);
      let sum = 0;
      for (let c = 0; c < columns; c++) if (entries[first + c] !== 0) sum += codes[c];
      view.setInt16(at + 2 * lane, sum, true);
      view.setUint16(at + 8 + 2 * lane, scale, true);
      writeCodes(out, matcher, codes, { at: at + HEADER_BYTES, lane, bits, chunkBytes, slots });
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

/** Rounds a row's kept entries of one block to nearest; codes by column. */
function nearestKept(
  S: Float32Array,
  [, dIn]: Shape2,
  { bits, blockChunks, columnImportance }: PackWindowsOptions,
): RunCoder {
  const n = blockChunks * CHUNK;
  const values = new Float32Array(n), keptColumns = new Int32Array(n), keptCodes = new Int8Array(n);
  const importance = columnImportance ? new Float32Array(n) : null;
  return (row, from, columns, codes) => {
    const at = row * dIn + from;
    let count = 0;
    for (let c = 0; c < columns; c++) {
      if (S[at + c] === 0) continue;
      values[count] = S[at + c];
      if (importance) importance[count] = columnImportance![from + c];
      keptColumns[count++] = c;
    }
    const scale = quantizeRow(values, importance, count, bits === 8 ? Q8_GRID : Q4_GRID, keptCodes);
    for (let i = 0; i < count; i++) codes[keptColumns[i]] = keptCodes[i];
    return scale;
  };
}
