/** Linear layers: each thread computes a run of groups of rows of W for all token rows. */
import { type LinearKernel, TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import {
  CHUNK,
  chunkCount,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  type WeightFormat,
} from "../../kernels/layout.ts";
import { groupRuns } from "./group_runs.ts";
import { type BindContext, type OpOf, placeOf, type Run } from "./bound.ts";

/**
 * Weights that one pass over all tiles reads at a time: with several tiles (prefill) a slab stays in the L2 cache while
 * every tile uses it.
 */
const SLAB_BYTES = 192 * 1024;

export function bindLinear(op: OpOf<"linear">, context: BindContext): Run {
  const { map, kernels, thread, threads } = context;
  const parts = op.weights.map((name) => map.tensors[name]);
  const [{ entry }] = parts;
  const format = entry.format as WeightFormat; // the plan names packed layers only
  const [dOut, dIn] = entry.shape;
  const out = placeOf(map, op.out);
  const shared = map.tiles[op.tile], own = map.own[thread].tiles[op.tile];
  const f32 = format.kind === "f32";
  const chunks = f32 ? dIn : chunkCount(dIn);
  const bytes = groupBytes(format, dIn), argument = formatArgument(format, dIn);
  const runs = groupRuns(parts.map((p) => groupCount(p.entry.shape[0])), thread, threads);
  const slab = Math.max(2, Math.floor(SLAB_BYTES / bytes / 2) * 2); // whole panels
  const kernel = Object.fromEntries(
    TILE_SIZES.map((s) => [s, kernels.linear(formatName(format), s)]),
  ) as Record<
    TileSize,
    LinearKernel
  >;
  const bias = op.bias ? map.tensors[op.bias].address : 0;
  const accumulate = op.accumulate || bias !== 0 ? 1 : 0;
  return (rows, tiles) => {
    const alone = tiles.length === 1;
    const tile = alone ? own : shared;
    for (const { part, from, to, outGroup } of runs) {
      const y = out.address + outGroup * 16;
      if (bias !== 0) {
        const cols = Math.min(dOut, to * 4) - from * 4;
        kernels.base.add_vector(y, out.stride, bias + from * 16, cols, rows, op.accumulate ? 0 : 1);
      }
      const step = alone ? to - from : slab;
      for (let g = from; g < to; g += step) {
        const count = Math.min(step, to - g);
        for (const t of tiles) {
          kernel[t.size](
            parts[part].address + g * bytes,
            f32 ? tile.f32 + t.row * dIn * 4 : tile.xa + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xb + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xs + t.row * chunks * 4,
            y + (t.row * out.stride + (g - from) * 4) * 4,
            out.stride,
            count,
            chunks,
            argument,
            accumulate,
            map.consts,
          );
        }
      }
    }
  };
}
