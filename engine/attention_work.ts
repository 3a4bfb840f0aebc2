/** How the attention of one step is cut into kernel calls and shared by threads. Pure: tests drive it alone. */
import { PART_TOKENS } from "../kernels/kv_layout.ts";

/**
 * Query heads (rows x groupSize) of a full tile: K and V are read and widened once for so many, while their states and
 * sums (2 x 4 bytes x headDim each) still fit the first-level cache beside a chunk of K and V.
 */
const TILE_QUERIES = 24;
const MAX_TILE_ROWS = 16;

/** Rows of one sequence that one kernel call takes together. */
export const tileRowsOf = (groupSize: number): number =>
  Math.max(1, Math.min(MAX_TILE_ROWS, Math.floor(TILE_QUERIES / groupSize)));

/** One kernel call: a tile of rows, some KV heads, some parts of the context (split work only). */
export interface AttentionCall {
  readonly row: number;
  readonly rows: number;
  readonly kvHeadBegin: number;
  readonly kvHeadEnd: number;
  readonly partBegin: number;
  readonly partEnd: number;
}

export interface AttentionWork {
  /** By thread. */
  readonly calls: readonly (readonly AttentionCall[])[];
  /** Contexts are cut into parts: the calls write partial softmaxes, which must be merged when all are there. */
  readonly split: boolean;
}

export interface AttentionStep {
  /** Visible tokens by row. */
  readonly contexts: Int32Array;
  /** Address of the KV block table by row: equal for rows of one sequence. */
  readonly tables: Int32Array;
  readonly kvHeads: number;
  readonly groupSize: number;
  /** 0 = none. */
  readonly window: number;
  readonly threads: number;
  /** Most rows whose parts there is room for. */
  readonly splitRows: number;
}

interface Tile {
  readonly row: number;
  readonly rows: number;
  readonly partBegin: number;
  readonly partEnd: number;
}

/** Consecutive rows of one sequence, at most `tileRowsOf()` together. */
function tilesOf({ contexts, tables, groupSize, window }: AttentionStep): Tile[] {
  const most = tileRowsOf(groupSize);
  const tiles: Tile[] = [];
  for (let row = 0; row < contexts.length;) {
    let end = row + 1;
    while (end < contexts.length && end - row < most && tables[end] === tables[row]) end++;
    const visible = contexts.subarray(row, end);
    const from = window > 0 ? Math.max(0, Math.min(...visible) - window) : 0;
    const [partBegin, partEnd] = [
      Math.floor(from / PART_TOKENS),
      Math.ceil(Math.max(...visible) / PART_TOKENS),
    ];
    tiles.push({ row, rows: end - row, partBegin, partEnd });
    row = end;
  }
  return tiles;
}

/** Fewer items than this a thread, and one of them may leave the others waiting. */
const ITEMS_PER_THREAD = 8;

/**
 * Cuts a step's attention. An item is a tile and a KV head; where those are few and contexts long (a decoding sequence at
 * 8k tokens has 3 items on SmolLM2: of 2 threads one would do two thirds), parts of the context are items too. Every
 * thread takes a run of consecutive items of about equal cost.
 */
export function shareAttention(step: AttentionStep): AttentionWork {
  const { contexts, kvHeads, threads, splitRows } = step;
  const tiles = tilesOf(step);
  const split = threads > 1 && contexts.length <= splitRows &&
    tiles.length * kvHeads < ITEMS_PER_THREAD * threads &&
    tiles.some((t) => t.partEnd - t.partBegin > 1);
  const items: { call: AttentionCall; cost: number }[] = [];
  for (const { row, rows, partBegin, partEnd } of tiles) {
    const top = contexts.subarray(row, row + rows).reduce((a, b) => Math.max(a, b), 0);
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const tile = { row, rows, kvHeadBegin: kvHead, kvHeadEnd: kvHead + 1 };
      if (!split) {
        items.push({ call: { ...tile, partBegin, partEnd }, cost: rows * (top - partBegin * PART_TOKENS) });
        continue;
      }
      for (let p = partBegin; p < partEnd; p++) {
        const tokens = Math.min(top, (p + 1) * PART_TOKENS) - p * PART_TOKENS;
        items.push({ call: { ...tile, partBegin: p, partEnd: p + 1 }, cost: rows * tokens });
      }
    }
  }
  const total = items.reduce((sum, { cost }) => sum + cost, 0);
  const calls: AttentionCall[][] = Array.from({ length: threads }, () => []);
  let before = 0;
  for (const { call, cost } of items) {
    // By the middle of the item, so that each thread is within half an item of its share.
    const thread = Math.min(threads - 1, Math.floor((before + cost / 2) / total * threads));
    append(calls[thread], call);
    before += cost;
  }
  return { calls, split };
}

/** Joins a call to the last one when it goes on where that ends. */
function append(calls: AttentionCall[], call: AttentionCall): void {
  const last = calls.at(-1);
  if (last && last.row === call.row) {
    const sameParts = last.partBegin === call.partBegin && last.partEnd === call.partEnd;
    if (sameParts && last.kvHeadEnd === call.kvHeadBegin) {
      calls[calls.length - 1] = { ...last, kvHeadEnd: call.kvHeadEnd };
      return;
    }
    if (
      last.kvHeadBegin === call.kvHeadBegin && last.kvHeadEnd === call.kvHeadEnd &&
      last.partEnd === call.partBegin
    ) {
      calls[calls.length - 1] = { ...last, partEnd: call.partEnd };
      return;
    }
  }
  calls.push(call);
}
