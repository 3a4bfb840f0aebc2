/**
 * The byte layouts that packers, kernels and artifacts share. Everything little-endian.
 *
 * A layer `W [dOut, dIn]` is cut into *groups* of 4 rows (dOut padded with zero rows to a multiple of 4) and
 * *chunks* of 64 columns. Windows pad dIn with zero columns to a multiple of 64; `q8` and `q4` only to whole vectors
 * (the factors of a low rank have few columns: a padded U of rank 36 takes 1.7 times the bytes), `f32` not at all. A
 * group's lanes 0..3 are its rows. Two groups make a *panel* of 8 rows: their headers and vectors alternate step by step
 * (a header, a vector of `f32`, `q8`, `q4` or `wKq4`, a slot pair of `wKq8`, 8 bytes of a half), so that a kernel that works on both reads
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
 * | `hKq4` | as `wKq4`, but each half takes 8 B (byte 2r+e), and halves come first |
 * | `hKq8` | as `wKq8`, but a pair of halves takes 8 B of indices and twice 8 B of values (byte 2r+e), and halves come first |
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
 * to the window {@linkcode windowSlots}()[s].window + 4q of the view it names. Each slot holds up to 4 entries a
 * row, a half (`hK`) 2; a free place has code 0.
 *
 * Halves let few slots reach all windows of both views: six slots are view A and half of the windows of B, or A and a half
 * of every one of B. Score lost against a free choice in every row, squared, blocks of 192 columns, S of OATS in blocks 1,
 * 8, 16 and 28 of SmolLM2:
 *
 * | kept | 4/16 | 5/16 | 6/16 | 7/16 | 8/16 |
 * |---|---|---|---|---|---|
 * | whole slots | 1.28 | 1.29 | 1.114 | 1.030 | 1.024 |
 * | whole slots, important columns of each block where both views reach | 1.25 | 1.19 | 1.098 | 1.031 | 1.024 |
 * | halves | 1.048 | 1.080 | 1.052 | 1.028 | 1.024 |
 * | halves, and a third view (diagonals) | 1.048 | 1.041 | 1.034 | 1.026 | 1.023 |
 *
 * SmolLM2 at rate 0.5 with six windows (OATS, κ 0.25, uniform, 20,480 tokens of WikiText-2; one draw of calibration text
 * each): perplexity 54.6 with whole slots, 52.1 with the entries that halves can hold.
 *
 * With halves an order of columns gains nothing (1.042, 1.078, 1.059), so views stay as they are. What a third view would
 * gain costs every input a third copy, of which 8 tokens x 2048 columns are all of a first-level cache. Speed against
 * whole slots, `h6` / `h5` / `h4` (batch 1 from memory; in the cache; batch 8): q8 1.00, 0.95, 0.93 / -, 0.91, 0.88 / 0.83,
 * 0.82, 0.79; q4 1.00, 0.96, 0.93 / -, 0.94, 0.89 / 0.88, 0.90, 0.90. One more whole slot costs `w6`
 * 0.84, 0.86, 0.86 (`w7`), more than halves do; `w4q8` about as much as halves (`w5q8`: 0.71, 0.76 to 0.82, 0.79).
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
    /** The slots of {@linkcode halfWindowSlots}, up to {@linkcode MAX_HALF_WINDOWS} of them. */
    readonly halves?: true;
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

/** Kernel-style name of a format: `f32`, `q8`, `q4`, `w6q8`, `h6q8`. */
export function formatName(f: WeightFormat): string {
  return f.kind === "windows" ? `${f.halves ? "h" : "w"}${f.windows}q${f.bits}` : f.kind;
}

/** One slot of a chunk: which view, which of the chunk's four windows in that view, and how many entries of a row it holds. */
export interface WindowSlot {
  readonly view: "A" | "B";
  readonly window: number;
  /** 4, or 2: half a slot. */
  readonly entries: 4 | 2;
}

/** Which slots a chunk has: what matters of a `WeightFormat`. */
export interface WindowCount {
  readonly windows: number;
  readonly halves?: true;
}

/** Seven windows gain 0.2 % of the lost score by halves and would pay 3 to 5 % of their speed; from eight on nothing is gained. */
export const MAX_HALF_WINDOWS = 6;

/** The slots that new layers take to keep windows / 16 of their weights. */
export const finestSlots = (windows: number): WindowCount =>
  windows <= MAX_HALF_WINDOWS ? { windows, halves: true } : { windows };

/** `count` slots of one size: rounds of four go to A, B, A, B; a partial round is spread (1: window 0; 2: 0 and 2; 3: 0, 1, 2). */
function rounds<Entries extends 4 | 2>(count: number, entries: Entries): WindowSlot[] {
  const slots: WindowSlot[] = [];
  for (let round = 0; slots.length < count; round++) {
    const view = round % 2 === 0 ? "A" : "B";
    const left = count - slots.length;
    const picks = left >= 4 ? [0, 1, 2, 3] : left === 3 ? [0, 1, 2] : left === 2 ? [0, 2] : [0];
    for (const window of picks) slots.push({ view, window, entries });
  }
  return slots;
}

/** Twice as many halves, dealt in rounds; two of one window are a whole slot. Halves come first. */
function halvedRounds(windows: number): WindowSlot[] {
  const same = (a: WindowSlot) => (b: WindowSlot) => a.view === b.view && a.window === b.window;
  const all = rounds(2 * windows, 2);
  const halves = all.filter((slot) => all.filter(same(slot)).length === 1);
  const whole = all.filter((slot, i) => !halves.includes(slot) && all.findIndex(same(slot)) === i);
  return [...halves, ...whole.map((slot) => ({ ...slot, entries: 4 } as const))];
}

/** The slots of one chunk in their order in memory; windows / 16 is the share of weights that can be kept. */
export const windowSlots = ({ windows, halves }: WindowCount): WindowSlot[] =>
  halves ? halvedRounds(windows) : rounds(windows, 4);

/** Bytes of one group's chunk: values, and with 8-bit ones the indices of each pair of slots. */
export const windowsChunkBytes = (
  { windows, halves, bits }: WindowCount & { readonly bits: 4 | 8 },
): number => bits === 4 ? 16 * windows : halves ? 24 * windows : 16 * (windows + Math.ceil(windows / 2));

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
      return blocks * HEADER_BYTES + chunks * windowsChunkBytes(f);
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
