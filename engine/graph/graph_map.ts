/** Where the layers of a graph lie in one shared WebAssembly memory: tensors, rows under way, and what threads share. */
import { CONSTS_BYTES, TILE_SIZES } from "../../kernels/abi.ts";
import { CHUNK, chunkCount } from "../../kernels/layout.ts";
import type { TensorEntry } from "../../models/formats/artifact_header.ts";
import type { Plan } from "../../models/plan.ts";
import type { LinearContext } from "../operations/bound.ts";
import { type BufferPlace, roundUp, type TilePlace } from "../segment_map.ts";
import { CONTROL_BYTES } from "../threads.ts";
import type { GraphPlan } from "./graph_plan.ts";

/** Rows that go through a layer at once: enough for the kernels' batches, few enough for the second-level cache. */
export const GRAPH_ROWS = 256;

export interface GraphMap extends Readonly<LinearContext["map"]> {
  readonly bytes: number;
  readonly control: number;
}

export function mapGraph(
  plan: GraphPlan,
  tensors: readonly TensorEntry[],
  { threads }: { readonly threads: number },
): GraphMap {
  let at = 1024; // address 0 means "none" to the kernels
  const take = (bytes: number): number => {
    const address = at;
    at = roundUp(at + bytes, 64);
    return address;
  };
  const buffer = (cols: number, rows: number): BufferPlace => {
    const stride = roundUp(cols, 16);
    return { address: take(rows * stride * 4), stride };
  };
  const tile = ({ cols, kinds }: Plan["tiles"][string], rows: number): TilePlace => {
    const padded = chunkCount(cols) * CHUNK;
    const views = kinds.includes("views"), bytes = views || kinds.includes("q8");
    return {
      xa: bytes ? take(rows * padded) : 0,
      xb: views ? take(rows * padded) : 0,
      xs: bytes ? take(rows * (padded / CHUNK) * 4) : 0,
      f32: kinds.includes("f32") ? take(rows * cols * 4) : 0,
    };
  };
  const tiles = (rows: number) =>
    Object.fromEntries(Object.entries(plan.tiles).map(([name, t]) => [name, tile(t, rows)]));
  return {
    control: take(CONTROL_BYTES),
    consts: take(CONSTS_BYTES),
    tensors: Object.fromEntries(tensors.map((entry) => [entry.name, { address: take(entry.bytes), entry }])),
    buffers: Object.fromEntries(
      Object.entries(plan.buffers).map(([name, cols]) => [name, buffer(cols, GRAPH_ROWS)]),
    ),
    tiles: tiles(GRAPH_ROWS),
    own: Array.from(
      { length: threads },
      () => ({ rows: { address: 0, stride: 0 }, tiles: tiles(TILE_SIZES[0]) }),
    ),
    bytes: at,
  };
}
