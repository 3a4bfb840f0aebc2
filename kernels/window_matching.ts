/**
 * Which entries of a row fit the windows of a block (layout.ts): every column lies in one window of view A and one of
 * view B, a window holds 4 entries a slot. Kept sets that fit are the independent sets of a transversal matroid, so
 * taking entries greedily by descending score, moving placed ones along augmenting paths, is optimal.
 */

import {
  CHUNK,
  chunkCount,
  finestSlots,
  MAX_HALF_WINDOWS,
  type Shape2,
  WINDOW,
  type WindowCount,
  windowSlots,
} from "./layout.ts";

/** Windows of a layer, as in its `WeightFormat`. */
export interface WindowOptions extends WindowCount {
  /** Slots a chunk, 1..15; with halves 1..{@linkcode MAX_HALF_WINDOWS}. */
  readonly windows: number;
  readonly blockChunks: number;
}

/** Most slots of one window in one chunk: 15 slots are A, B, A and three of B. */
const MAX_CAPACITY = 8;

/** Places the columns of one row in the windows of a block of `chunks` chunks: 0..w-1 of view A, w..2w-1 of view B. */
export class WindowMatcher {
  /** Windows a view. */
  readonly width: number;
  /** Entries each window holds, `[2 width]`. */
  readonly count: Int32Array;
  /** Columns in each window, `[2 width][MAX_CAPACITY]`. */
  private readonly columns: Int32Array;
  private readonly capacity: Int32Array;
  /** Windows no further entry can enter: full, and so is all that can be reached from them. */
  private readonly closed: Uint8Array;
  /** Search state: stamp of the search that saw a window, and whence. */
  private readonly seen: Int32Array;
  private readonly fromWindow: Int32Array;
  private readonly fromPlace: Int32Array;
  private readonly queue: Int32Array;
  private stamp = 0;

  constructor(count: WindowCount, readonly chunks: number) {
    this.width = 4 * chunks;
    const nodes = 2 * this.width;
    this.count = new Int32Array(nodes);
    this.columns = new Int32Array(nodes * MAX_CAPACITY);
    this.capacity = new Int32Array(nodes);
    this.closed = new Uint8Array(nodes);
    this.seen = new Int32Array(nodes);
    this.fromWindow = new Int32Array(nodes);
    this.fromPlace = new Int32Array(nodes);
    this.queue = new Int32Array(nodes);
    for (const { view, window, entries } of windowSlots(count)) {
      const first = (view === "B" ? this.width : 0) + window;
      for (let q = 0; q < chunks; q++) this.capacity[first + 4 * q] += entries;
    }
  }

  /** Empties all windows. */
  reset(): void {
    this.count.fill(0);
    for (let v = 0; v < this.closed.length; v++) this.closed[v] = this.capacity[v] === 0 ? 1 : 0;
  }

  /** The `place`-th column in window `v`. */
  column(v: number, place: number): number {
    return this.columns[v * MAX_CAPACITY + place];
  }

  /** Places column `c` of the block, moving others if needed; false (and nothing changed) when it cannot fit. */
  add(c: number): boolean {
    const a = c >> 4;
    const b = this.width + c % this.width;
    if (this.count[a] < this.capacity[a]) return this.put(a, c);
    if (this.count[b] < this.capacity[b]) return this.put(b, c);
    return this.augment(a, b, c);
  }

  private put(v: number, c: number): true {
    this.columns[v * MAX_CAPACITY + this.count[v]++] = c;
    return true;
  }

  /** Breadth-first over windows; an edge leads from a window to the other window of an entry it holds. */
  private augment(a: number, b: number, c: number): boolean {
    const { width, count, capacity, columns, closed, seen, queue, fromWindow, fromPlace } = this;
    const stamp = ++this.stamp;
    let tail = 0;
    for (const v of [a, b]) {
      if (closed[v]) continue;
      seen[v] = stamp;
      fromWindow[v] = -1;
      queue[tail++] = v;
    }
    for (let head = 0; head < tail; head++) {
      const v = queue[head];
      for (let place = 0; place < count[v]; place++) {
        const moved = columns[v * MAX_CAPACITY + place];
        const other = v < width ? width + moved % width : moved >> 4;
        if (seen[other] === stamp || closed[other]) continue;
        seen[other] = stamp;
        fromWindow[other] = v;
        fromPlace[other] = place;
        if (count[other] < capacity[other]) {
          this.shift(other, c);
          return true;
        }
        queue[tail++] = other;
      }
    }
    // What was reached is full and leads nowhere else: closed for good, so failing searches cost linear time in all.
    for (let i = 0; i < tail; i++) closed[queue[i]] = 1;
    return false;
  }

  /** Moves entries along the path that ends in `v`, which has room; `c` enters at its start. */
  private shift(v: number, c: number): void {
    const { columns, fromWindow, fromPlace } = this;
    let place = this.count[v]++;
    while (fromWindow[v] >= 0) {
      const from = fromWindow[v];
      const fromAt = fromPlace[v];
      columns[v * MAX_CAPACITY + place] = columns[from * MAX_CAPACITY + fromAt];
      v = from;
      place = fromAt;
    }
    columns[v * MAX_CAPACITY + place] = c;
  }
}

/** A matcher for each length of block that occurs in a layer. */
export function matcherCache(count: WindowCount): (chunks: number) => WindowMatcher {
  const matchers = new Map<number, WindowMatcher>();
  return (chunks) => {
    let matcher = matchers.get(chunks);
    if (!matcher) matchers.set(chunks, matcher = new WindowMatcher(count, chunks));
    return matcher;
  };
}

/** Blocks of a layer: first column, columns (the last may end within a chunk), chunks. */
export function blocksOf(
  dIn: number,
  blockChunks: number,
): { from: number; columns: number; chunks: number }[] {
  const blocks = [];
  const total = chunkCount(dIn);
  for (let chunk = 0; chunk < total; chunk += blockChunks) {
    const chunks = Math.min(blockChunks, total - chunk);
    const from = chunk * CHUNK;
    blocks.push({ from, columns: Math.min(chunks * CHUNK, dIn - from), chunks });
  }
  return blocks;
}

/** Columns of one block at most: a key that sorts 32 bits must hold the column and enough of the score. */
const MAX_COLUMNS = 4096;

/**
 * Columns of one row's block by ascending score (ties: highest first), zeros left out.
 * A key has the upper bits of the score (floats that are not negative are ordered as their bits) above the reversed
 * column: native sorting of 32-bit integers takes a fifth of the time of doubles that hold both whole (192 columns: 1.4
 * against 6.6 us). Scores that differ in their last bits only are put right afterwards.
 */
function orderColumns(bits: Uint32Array, from: number, columns: number, keys: Uint32Array): Uint32Array {
  const columnBits = 32 - Math.clz32(columns - 1), last = 2 ** columnBits - 1;
  let n = 0;
  for (let c = 0; c < columns; c++) {
    const b = bits[from + c];
    if (b !== 0 && b <= 0x7f800000) keys[n++] = ((b << 1) >>> columnBits << columnBits) | (last - c);
  }
  const order = keys.subarray(0, n).sort();
  for (let i = 1; i < n; i++) {
    const key = order[i], own = bits[from + last - (key & last)];
    let j = i - 1;
    for (; j >= 0 && (order[j] ^ key) >>> columnBits === 0; j--) {
      const other = bits[from + last - (order[j] & last)];
      if (other < own || (other === own && order[j] < key)) break;
      order[j + 1] = order[j];
    }
    order[j + 1] = key;
  }
  for (let i = 0; i < n; i++) order[i] = last - (order[i] & last);
  return order;
}

/**
 * The entries each row keeps: per row and block the set of largest total score that the windows can hold.
 * Entries of score 0 (or NaN) are never kept. About 0.03 s per million weights (50 % kept, blocks of 128).
 *
 * @param scores `[dOut, dIn]`, >= 0
 * @returns mask `[dOut, dIn]`: 1 = kept
 */
export function assignWindows(scores: Float32Array, shape: Shape2, options: WindowOptions): Uint8Array {
  const { windows, blockChunks, halves } = checkedOptions(scores.length, shape, options);
  const [dOut, dIn] = shape;
  const mask = new Uint8Array(dOut * dIn);
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  const matcherOf = matcherCache({ windows, halves });
  const keys = new Uint32Array(blockChunks * CHUNK);
  const blocks = blocksOf(dIn, blockChunks);
  for (let row = 0; row < dOut; row++) {
    for (const { from, columns, chunks } of blocks) {
      const matcher = matcherOf(chunks);
      matcher.reset();
      const at = row * dIn + from;
      const order = orderColumns(bits, at, columns, keys);
      let room = windows * 4 * chunks;
      for (let i = order.length - 1; i >= 0 && room > 0; i--) {
        const c = order[i];
        if (matcher.add(c)) {
          mask[at + c] = 1;
          room--;
        }
      }
    }
  }
  return mask;
}

/** @throws {RangeError} when lengths, shape or options are impossible */
export function checkedOptions(length: number, shape: Shape2, options: WindowOptions): WindowOptions {
  const { windows, blockChunks, halves } = options;
  if (length !== shape[0] * shape[1]) {
    throw new RangeError(`Cannot read ${length} entries as [${shape}]: must be ${shape[0] * shape[1]}`);
  }
  if (!(Number.isInteger(windows) && windows >= 1 && windows <= 15)) {
    throw new RangeError(`Cannot use ${windows} windows: must be 1 to 15`);
  }
  if (halves && windows > MAX_HALF_WINDOWS) {
    throw new RangeError(`Cannot use ${windows} windows of halves: must be 1 to ${MAX_HALF_WINDOWS}`);
  }
  if (!(Number.isInteger(blockChunks) && blockChunks >= 1 && blockChunks * CHUNK <= MAX_COLUMNS)) {
    throw new RangeError(`Cannot use blocks of ${blockChunks} chunks: must be 1 to ${MAX_COLUMNS / CHUNK}`);
  }
  return options;
}

/**
 * The fewest slots that hold every row of a mask as it is, with halves or without (N of every 16 columns, N a multiple of
 * 4, are whole slots of view A alone); 16 windows = none do, the layer must be dense.
 *
 * @param mask `[dOut, dIn]`, non-zero = kept (a mask or the weights themselves)
 */
export function slotsNeeded(
  mask: Uint8Array | Float32Array,
  shape: Shape2,
  blockChunks: number,
): WindowCount {
  checkedOptions(mask.length, shape, { windows: 1, blockChunks });
  const blocks = blocksOf(shape[1], blockChunks);
  const fits = (slots: WindowCount): boolean => {
    const matcherOf = matcherCache(slots);
    for (let row = 0; row < shape[0]; row++) {
      for (const { from, columns, chunks } of blocks) {
        if (!placeAll(matcherOf(chunks), mask, row * shape[1] + from, columns)) return false;
      }
    }
    return true;
  };
  for (let windows = 1; windows < WINDOW; windows++) {
    const halved = finestSlots(windows);
    for (const slots of halved.halves ? [{ windows }, halved] : [halved]) if (fits(slots)) return slots;
  }
  return { windows: WINDOW };
}

/** Places every non-zero entry of a row's block; false when they do not all fit. */
export function placeAll(
  matcher: WindowMatcher,
  mask: Uint8Array | Int8Array | Float32Array,
  at: number,
  columns: number,
): boolean {
  matcher.reset();
  for (let c = 0; c < columns; c++) if (mask[at + c] !== 0 && !matcher.add(c)) return false;
  return true;
}
