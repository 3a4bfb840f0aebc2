/**
 * Where LoRA adapters lie in a memory. Tables and scratch are laid out when the engine is loaded, and touched when the first
 * adapter comes; weights lie behind everything else, in memory that grows with them (adapters.ts).
 */
import { TILE_SIZES } from "../kernels/abi.ts";
import { CHUNK, chunkCount, groupCount, ROWS } from "../kernels/layout.ts";
import { MAX_LORA_RANK } from "../models/adapter.ts";
import type { PlannedAdapters, PlanOp } from "../models/plan.ts";
import type { BufferPlace, TilePlace } from "./segment_map.ts";

/** Most adapters of an engine at once: a table of a few KB each is all that the number costs. */
export const MAX_ADAPTERS = 64;
/** Of a table's entry: rank (0: the adapter leaves the layer as it is), address of A, address of B. */
export const ENTRY_WORDS = 3;
/** Of a run of rows: the adapter's slot, the first row, the row behind the last. */
export const RUN_WORDS = 3;

export interface AdapterPlaces {
  readonly format: PlannedAdapters["format"];
  /** Layers of a table: {@linkcode PlannedAdapters.layers}. */
  readonly layers: number;
  /** Numbers of those that this memory holds. */
  readonly inside: readonly number[];
  /** u32 `[MAX_ADAPTERS][layers][ENTRY_WORDS]`. */
  readonly tables: number;
  /** By a layer's place in its input: A x of all rows, a row of {@linkcode MAX_LORA_RANK} after the other. */
  readonly low: readonly TilePlace[];
  /** By thread: one tile of the input, and A x of its rows. */
  readonly own: readonly { readonly input: TilePlace; readonly low: BufferPlace }[];
}

/** Index of the first of a layer's {@linkcode ENTRY_WORDS}, in words. */
export const entryOf = (
  { tables, layers }: Pick<AdapterPlaces, "tables" | "layers">,
  slot: number,
  layer: number,
): number => tables / 4 + (slot * layers + layer) * ENTRY_WORDS;

/** @param take gives room for so many bytes @returns null where the operations have nothing to adapt */
export function adapterPlaces(
  { format, layers }: PlannedAdapters,
  ops: readonly PlanOp[],
  { take, threads, maxRows }: {
    readonly take: (bytes: number) => number;
    readonly threads: number;
    readonly maxRows: number;
  },
): AdapterPlaces | null {
  const inputs = ops.filter((op) => op.op === "adapt_in");
  if (inputs.length === 0) return null;
  const tile = (rows: number, cols: number): TilePlace => {
    const chunks = chunkCount(cols);
    return format.kind === "f32"
      ? { xa: 0, xb: 0, xs: 0, f32: take(rows * cols * 4) }
      : { xa: take(rows * chunks * CHUNK), xb: 0, xs: take(rows * chunks * 4), f32: 0 };
  };
  const most = TILE_SIZES[0], stride = groupCount(MAX_LORA_RANK) * ROWS;
  const cols = Math.max(...inputs.map((op) => op.cols));
  const together = Math.max(...inputs.map((op) => op.layers.length));
  return {
    format,
    layers: layers.length,
    inside: inputs.flatMap((op) => op.layers),
    tables: take(MAX_ADAPTERS * layers.length * ENTRY_WORDS * 4),
    low: Array.from({ length: together }, () => tile(maxRows, MAX_LORA_RANK)),
    own: Array.from({ length: threads }, () => ({
      input: tile(most, cols),
      low: { address: take(most * stride * 4), stride },
    })),
  };
}
