/** Linear layers: each thread computes a run of groups of rows of W for all token rows. */
import { type LinearKernel, TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import {
  CHUNK,
  chunkCount,
  columnParts,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  ROWS,
  type WeightFormat,
} from "../../kernels/layout.ts";
import { groupRuns } from "./group_runs.ts";
import { type LinearContext, type OpOf, placeOf, type Run } from "./bound.ts";

/**
 * Weights that one pass over all tiles reads at a time: with several tiles (prefill) a slab stays in the L2 cache while
 * every tile uses it.
 */
const SLAB_BYTES = 192 * 1024;

export function bindLinear(op: OpOf<"linear">, context: LinearContext): Run {
  const { map, kernels, thread, threads } = context;
  const weights = op.weights.map((name) => map.tensors[name]);
  const [{ entry }] = weights;
  const format = entry.format as WeightFormat; // the plan names packed layers only
  const [, dIn] = entry.shape;
  const out = placeOf(map, op.out);
  const shared = map.tiles[op.tile], own = map.own[thread].tiles[op.tile];
  const parts = rowParts(format, dIn);
  const runs = groupRuns(weights.map((w) => groupCount(w.entry.shape[0])), thread, threads);
  const kernel = Object.fromEntries(
    TILE_SIZES.map((s) => [s, kernels.linear(formatName(format), s)]),
  ) as Record<
    TileSize,
    LinearKernel
  >;
  const biases = op.biases.map((name) => map.tensors[name].address);
  const accumulate = op.accumulate || biases.length > 0;
  const f32 = format.kind === "f32";
  const rowBytes = f32 ? dIn * 4 : chunkCount(dIn) * CHUNK;
  return (_rows, tiles) => {
    const alone = tiles.length === 1;
    const tile = alone ? own : shared;
    const x = f32 ? tile.f32 : tile.xa;
    for (const { part: weight, from, to, outGroup } of runs) {
      const y = out.address + outGroup * 16;
      const { address, entry: { shape: [dOut] } } = weights[weight];
      for (const [p, part] of parts.entries()) {
        const w = address + groupCount(dOut) * part.before;
        const step = alone ? to - from : Math.max(2, Math.floor(SLAB_BYTES / part.bytes / 2) * 2); // whole panels
        for (let g = from; g < to; g += step) {
          const count = Math.min(step, to - g);
          for (const t of tiles) {
            const at = y + (t.row * out.stride + (g - from) * 4) * 4;
            if (p === 0 && biases.length > 0) {
              // Just before the kernel adds to them: they are in the first-level cache.
              const cols = Math.min(dOut, (g + count) * ROWS) - g * ROWS;
              kernels.base.add_vector(
                at,
                out.stride,
                biases[weight] + g * ROWS * 4,
                cols,
                t.size,
                op.accumulate ? 0 : 1,
              );
            }
            const bytes = t.row * rowBytes + part.chunk * t.size * CHUNK;
            // Plain arguments: spread ones made prompts in steps of 64 rows a quarter slower.
            kernel[t.size](
              w + g * part.bytes,
              x + bytes,
              tile.xb + bytes,
              tile.xs + bytes / CHUNK * 4,
              at,
              out.stride,
              count,
              part.chunks,
              part.argument,
              accumulate || p > 0 ? 1 : 0,
              map.consts,
            );
          }
        }
      }
    }
  };
}

/** What the kernel calls on each part of a row share; `before`: bytes of a group in earlier parts, `bytes`: in this one. */
export function rowParts(format: WeightFormat, dIn: number) {
  let before = 0;
  return columnParts(format, dIn).map(({ chunk, cols }) => {
    const bytes = groupBytes(format, cols);
    const part = {
      chunk,
      before,
      bytes,
      chunks: format.kind === "f32" ? cols : chunkCount(cols),
      argument: formatArgument(format, cols),
    };
    before += bytes;
    return part;
  });
}
