/** Linear layers: each thread computes a run of groups of rows of W for all token rows. */
import { type LinearKernel, TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import {
  CHUNK,
  chunkCount,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  ROWS,
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
  const [, dIn] = entry.shape;
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
  const biases = op.biases.map((name) => map.tensors[name].address);
  const accumulate = op.accumulate || biases.length > 0 ? 1 : 0;
  return (_rows, tiles) => {
    const alone = tiles.length === 1;
    const tile = alone ? own : shared;
    for (const { part, from, to, outGroup } of runs) {
      const y = out.address + outGroup * 16;
      const [dOut] = parts[part].entry.shape;
      const step = alone ? to - from : slab;
      for (let g = from; g < to; g += step) {
        const count = Math.min(step, to - g);
        for (const t of tiles) {
          const at = y + (t.row * out.stride + (g - from) * 4) * 4;
          if (biases.length > 0) {
            // Just before the kernel adds to them: they are in the first-level cache.
            const cols = Math.min(dOut, (g + count) * ROWS) - g * ROWS;
            kernels.base.add_vector(
              at,
              out.stride,
              biases[part] + g * ROWS * 4,
              cols,
              t.size,
              op.accumulate ? 0 : 1,
            );
          }
          kernel[t.size](
            parts[part].address + g * bytes,
            f32 ? tile.f32 + t.row * dIn * 4 : tile.xa + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xb + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xs + t.row * chunks * 4,
            at,
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
