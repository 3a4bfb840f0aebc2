/** What an operation of the plan becomes on one thread: a function over the rows of a step, bound to the places of its segment. */
import { TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import type { Kernels } from "../../kernels/load.ts";
import type { BufferRef, Plan, PlanOp } from "../../models/plan.ts";
import type { ModelSpec } from "../../models/spec.ts";
import type { BufferPlace, SegmentMap } from "../segment_map.ts";
import type { StepAdapters } from "./adapters.ts";
import type { StepAttention } from "./attention.ts";
import type { Routing } from "./routing.ts";

/** A run of token rows that one batched kernel call handles. */
export interface Tile {
  readonly row: number;
  readonly size: TileSize;
}

/** rows = 8 + 8 + 4 + 1 ... in order. */
export function tilesOf(rows: number): Tile[] {
  const tiles: Tile[] = [];
  for (let row = 0; row < rows;) {
    const size = TILE_SIZES.find((s) => s <= rows - row)!;
    tiles.push({ row, size });
    row += size;
  }
  return tiles;
}

/** One bound operation: all rows of the step, all tiles, and this thread's share of the tiles. */
export type Run = (rows: number, tiles: readonly Tile[], mine: readonly Tile[]) => void;

/** Everything that binding an operation of one segment on one thread needs. */
export interface BindContext {
  readonly plan: Plan;
  readonly map: SegmentMap;
  /** Instances on the segment's memory. */
  readonly kernels: Kernels;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly thread: number;
  readonly threads: number;
  /** How the current step's attention is shared. */
  readonly attention: StepAttention;
  /** Which of the step's rows have a LoRA adapter. */
  readonly adapters: StepAdapters;
  /** The segment's memory. */
  readonly words: Uint32Array;
  /** Which rows have chosen which expert of the block, on the segment. */
  readonly routing: Routing;
  /** Returns when all threads have called it. */
  readonly barrier: () => void;
}

/** What preparing inputs and multiplying them needs of a {@linkcode BindContext}: less than a model's blocks do. */
export interface LinearContext extends Pick<BindContext, "kernels" | "blockChunks" | "thread" | "threads"> {
  readonly map: Pick<SegmentMap, "tensors" | "buffers" | "tiles" | "own" | "consts">;
  /** Absent where no input is normalised. */
  readonly spec?: Pick<ModelSpec, "norm">;
  /** Absent where there are no experts. */
  readonly routing?: Routing;
}

/** The plan's operation of one kind. */
export type OpOf<K extends PlanOp["op"]> = PlanOp & { readonly op: K };

/** Where a buffer's columns lie in the segment's memory. */
export function placeOf(map: Pick<SegmentMap, "buffers">, { buffer, column }: BufferRef): BufferPlace {
  const { address, stride } = map.buffers[buffer];
  return { address: address + column * 4, stride };
}
