/**
 * The byte layouts that packers, kernels and artifacts share. Everything little-endian.
 *
 * A layer `W [dOut, dIn]` is cut into *groups* of 4 rows (dOut padded with zero rows to a multiple of 4) and
 * *chunks* of 64 columns. Windows pad dIn with zero columns to a multiple of 64; `q8` and `q4` only to whole vectors
 * (the factors of a low rank have few columns: a padded U of rank 36 takes 1.7 times the bytes), `f32` not at all. A
 * group's lanes 0..3 are its rows. Two groups make a *panel* of 8 rows: their headers and vectors alternate step by step
 * (a header, a vector of `f32`, `q8`, `q4` or `wKq4`, a slot pair of `wKq8`), so that a kernel that works on both reads
 * one stream. (Two streams, one from each half of the rows, ran layers of less than 100 KB at 0.45 to 0.8 of the speed:
 * each has to be found by the prefetcher. Larger ones were equal.) Panels are stored one after the other, so a thread's
 * share of rows is contiguous; an odd last group stands alone.
 *
 * Long rows are cut: a layer of more than {@linkcode PART_CHUNKS} chunks is stored as several layers of fewer columns, one
 * after the other ({@linkcode columnParts}), whose results add up. `f32` is not cut.
 *
 * | format | one group |
 * |---|---|
 * | `f32` | dIn x 4 floats: column c holds the 4 rows' values |
 * | `q8` | per chunk: header 16 B, then 16 vectors of 16 B (the last chunk: one for every 4 columns left); vector k, byte 4r+e = code of row r, column 4k+e |
 * | `q4` | per chunk: header 16 B, then 8 vectors (the last chunk: one for every 8 columns left); vector k, byte 4r+e: low nibble = column 8k+e, high nibble = column 8k+4+e (both + 8) |
 * | `wKq4` | per block: header 16 B, then per chunk K vectors; byte 4r+e = code + 8 (low nibble), index in the window << 4 |
 * | `wKq8` | per block: header 16 B, then per chunk, for each pair of slots: 16 B of indices (low nibble: even slot, high: odd slot), then the pair's two value vectors (one when K is odd and the pair is the last) |
 *
 * Why no bitmask for S: one bit a weight instead of 4 bits a kept entry saves 11 % of the bytes at 37.5 % kept, but to
 * expand 16 entries takes about 28 instructions a row: 5 billion weights a second against 60 (one thread, in the cache), so
 * it would win only where a thread reads less than 3 GB/s.
 *
 * Header: 4 x i16 = sum of the codes of each row (over the header's columns), then 4 x bf16 = scale of each row.
 * weight = code x scale. Codes: `q8` values lie in -63..63 (7 bits: a pair of products with an unsigned 8-bit
 * activation must fit i16, 2 x 63 x 255 = 32130), `q4` values in -8..7.
 *
 * *Blocks* are runs of `blockChunks` chunks (the last may be shorter); all columns of a block share one
 * activation scale. A block of n chunks has w = 4n windows in each of two views: view A window i = columns
 * 16i..16i+15 of the block, view B window j = its columns j, j+w, j+2w, ... Slot s of chunk q of a block belongs
 * to the window {@linkcode windowSlots}(K)[s].window + 4q of the view it names. Each slot holds up to 4 entries a
 * row; a free place has code 0.
 */

/** How a packed layer's weights are stored; the kernel's name says the same. */
export type WeightFormat =
  | { readonly kind: "f32" }
  | { readonly kind: "q8" }
  | { readonly kind: "q4" }
  | {
    readonly kind: "windows";
    readonly windows: number;
    readonly bits: 4 | 8;
    readonly blockChunks: number;
  };

export const CHUNK = 64;
export const WINDOW = 16;
export const ROWS = 4;
export const HEADER_BYTES = 16;
export const Q8_MAX = 63;
export const Q4_MIN = -8;
export const Q4_MAX = 7;

/** `[dOut, dIn]` */
export type Shape2 = readonly [number, number];

export const groupCount = (dOut: number): number => Math.ceil(dOut / ROWS);
export const chunkCount = (dIn: number): number => Math.ceil(dIn / CHUNK);

/** Kernel-style name of a format: `f32`, `q8`, `q4`, `w6q8`. */
export function formatName(f: WeightFormat): string {
  return f.kind === "windows" ? `w${f.windows}q${f.bits}` : f.kind;
}

/** One slot of a chunk: which view, and which of the chunk's four windows in that view. */
export interface WindowSlot {
  readonly view: "A" | "B";
  readonly window: number;
}

/**
 * The windows of one chunk with K slots: rounds of four go to A, B, A, B; a partial round is spread (1: window 0;
 * 2: 0 and 2; 3: 0, 1, 2). K/16 is the share of weights that can be kept.
 */
export function windowSlots(windows: number): WindowSlot[] {
  const slots: WindowSlot[] = [];
  for (let round = 0; slots.length < windows; round++) {
    const view = round % 2 === 0 ? "A" : "B";
    const left = windows - slots.length;
    const picks = left >= 4 ? [0, 1, 2, 3] : left === 3 ? [0, 1, 2] : left === 2 ? [0, 2] : [0];
    for (const window of picks) slots.push({ view, window });
  }
  return slots;
}

/** Bytes of one chunk of K slots: values, and with 8-bit ones the indices of each pair of slots. */
export const windowsChunkBytes = (windows: number, bits: 4 | 8): number =>
  16 * (windows + (bits === 8 ? Math.ceil(windows / 2) : 0));

/** Vectors of 16 bytes that `columns` columns of 4 rows take in a dense format. */
export const denseVectors = (kind: "q8" | "q4", columns: number): number =>
  Math.ceil(columns / (kind === "q8" ? 4 : 8));

/**
 * What abi.ts `LinearKernel` takes as `formatArgument`: chunks of a block (windows), vectors of the last chunk (`q8`:
 * 1..16, `q4`: 1..8), nothing (`f32`).
 */
export function formatArgument(f: WeightFormat, dIn: number): number {
  switch (f.kind) {
    case "f32":
      return 0;
    case "q8":
    case "q4":
      return denseVectors(f.kind, dIn - CHUNK * (chunkCount(dIn) - 1));
    case "windows":
      return f.blockChunks;
  }
}

/** Bytes of one group of 4 rows. */
export function groupBytes(f: WeightFormat, dIn: number): number {
  const chunks = chunkCount(dIn);
  switch (f.kind) {
    case "f32":
      return dIn * ROWS * 4;
    case "q8":
    case "q4":
      return chunks * HEADER_BYTES + 16 * denseVectors(f.kind, dIn);
    case "windows": {
      const blocks = Math.ceil(chunks / f.blockChunks);
      return blocks * HEADER_BYTES + chunks * windowsChunkBytes(f.windows, f.bits);
    }
  }
}

/**
 * Most chunks of a row that lie together: 2048 columns. With longer rows both views of the input and the weights of a panel
 * displace each other in the first-level cache (w6q4 from memory, batch 1: 51 billion weights a second with 2048 columns,
 * 44 with 4096, 34 with 5504, 27 with 11008; the same in the cache).
 */
export const PART_CHUNKS = 32;

/** A run of a layer's columns that is stored as a layer of its own. */
export interface ColumnPart {
  /** First chunk, a block's first. */
  readonly chunk: number;
  readonly cols: number;
}

/** The parts of a row of `dIn` columns, as equal as whole blocks allow. */
export function columnParts(f: WeightFormat, dIn: number): ColumnPart[] {
  const chunks = chunkCount(dIn);
  if (f.kind === "f32" || chunks <= PART_CHUNKS) return [{ chunk: 0, cols: dIn }];
  const unit = f.kind === "windows" ? f.blockChunks : 1;
  const units = Math.ceil(chunks / unit), parts = Math.ceil(units / Math.floor(PART_CHUNKS / unit));
  const begins = Array.from({ length: parts }, (_, i) => Math.floor(units * i / parts) * unit);
  return begins.map((chunk, i) => ({
    chunk,
    cols: (begins[i + 1] === undefined ? dIn : begins[i + 1] * CHUNK) - chunk * CHUNK,
  }));
}

/** Bytes of a packed layer `[dOut, dIn]`. */
export function packedBytes(f: WeightFormat, [dOut, dIn]: Shape2): number {
  return groupCount(dOut) * groupBytes(f, dIn);
}
