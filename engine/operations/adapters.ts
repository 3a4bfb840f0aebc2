/**
 * LoRA adapters (Hu et al., arXiv 2106.09685): B (A x) is added to what a layer writes, in the rows of sequences that have
 * an adapter. A step's rows are ordered by adapter, so that those of one are a run and its weights are read once.
 *
 * A is shared by tiles of rows: whoever has a tile prepares it and all of A x, since a rank is too few rows of W to share.
 * B is shared like a layer, by runs of its outputs, the same as U's: a thread adds to what it wrote itself. Both read 8-bit
 * tiles, with a scale for each 64 columns, where the model's own weights are quantised: a row's bits then depend on nothing
 * beside it.
 */
import { type LinearKernel, TILE_SIZES, type TileSize } from "../../kernels/abi.ts";
import type { Kernels } from "../../kernels/load.ts";
import {
  CHUNK,
  chunkCount,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  type WeightFormat,
} from "../../kernels/layout.ts";
import { MAX_LORA_RANK } from "../../models/adapter.ts";
import { type AdapterPlaces, entryOf, RUN_WORDS } from "../adapter_places.ts";
import type { TilePlace } from "../segment_map.ts";
import { type BindContext, type OpOf, placeOf, type Run, type Tile, tilesOf } from "./bound.ts";
import { groupRuns } from "./group_runs.ts";
import { rowParts } from "./linear.ts";
import { bindStep } from "./prepare.ts";

/** A tile of rows whose sequences have the adapter in a slot. */
interface AdaptedTile extends Tile {
  readonly slot: number;
}

/** The adapted rows of the current step: found once a step by every thread. */
export class StepAdapters {
  tiles: readonly AdaptedTile[] = [];
  /** Of these, the thread's share. */
  mine: readonly AdaptedTile[] = [];

  /** @param ints view of the memory that the leader writes steps into; `runs`: address of the step's runs */
  constructor(
    private readonly ints: Int32Array,
    private readonly runs: number,
    private readonly share: { readonly thread: number; readonly threads: number },
  ) {}

  /** @param count of the step's runs */
  begin(count: number): void {
    if (count === 0 && this.tiles.length === 0) return;
    const { thread, threads } = this.share;
    this.tiles = Array.from({ length: count }, (_, i) => {
      const [slot, from, to] = this.ints.subarray(this.runs / 4 + i * RUN_WORDS);
      return tilesOf(to - from).map(({ row, size }) => ({ slot, row: from + row, size }));
    }).flat();
    this.mine = this.tiles.filter((_, i) => i % threads === thread);
  }
}

/** What both operations need of the segment. */
function bound({ map, kernels, words }: BindContext) {
  const places = map.adapters!; // a plan with these operations has them
  return { places, words, linear: linearKernels(kernels, places.format), consts: map.consts };
}

const linearKernels = (kernels: Kernels, format: WeightFormat): Readonly<Record<TileSize, LinearKernel>> =>
  Object.fromEntries(TILE_SIZES.map((size) => [size, kernels.linear(formatName(format), size)])) as Record<
    TileSize,
    LinearKernel
  >;

/** Where a tile that begins with step row `row` lies among the rows of `low`. */
const lowTile = ({ xa, xs, f32 }: TilePlace, row: number): TilePlace => ({
  xa: xa + row * MAX_LORA_RANK,
  xb: 0,
  xs: xs + row * chunkCount(MAX_LORA_RANK) * 4,
  f32: f32 + row * MAX_LORA_RANK * 4,
});

/** Makes rows of floats a tile in the adapters' format. */
function bindTile({ map, kernels: { base } }: BindContext, { format }: AdapterPlaces) {
  return (x: number, stride: number, cols: number, size: TileSize, tile: TilePlace): void => {
    if (format.kind === "f32") base.interleave[size](x, stride, cols, 0, tile.f32);
    else base.quantize[size](x, stride, cols, chunkCount(cols), 1, 0, tile.xa, 0, tile.xs, map.consts);
  };
}

export function bindAdaptIn(op: OpOf<"adapt_in">, context: BindContext): Run {
  const { map, thread, adapters } = context;
  const { places, words, linear, consts } = bound(context);
  const own = places.own[thread], { rows: scratch } = map.own[thread];
  const input = placeOf(map, op.input), step = bindStep(op, context), makeTile = bindTile(context, places);
  const parts = rowParts(places.format, op.cols), f32 = places.format.kind === "f32";
  const prepare = ({ row, size }: Tile) => {
    const x = input.address + row * input.stride * 4;
    if (!step) return makeTile(x, input.stride, op.cols, size, own.input);
    step(x, input.stride, row, scratch, size);
    makeTile(scratch.address, scratch.stride, op.cols, size, own.input);
  };
  /** A x of the prepared tile, for the layer at `place` of the input. */
  const project = ({ row, size }: Tile, place: number, rank: number, A: number) => {
    const groups = groupCount(rank), { low } = own;
    parts.forEach(({ chunk, before, chunks, argument }, p) => {
      const at = chunk * size * CHUNK;
      const x = f32 ? own.input.f32 : own.input.xa + at;
      linear[size](
        A + groups * before,
        x,
        0,
        own.input.xs + at / CHUNK * 4,
        low.address,
        low.stride,
        groups,
        chunks,
        argument,
        p > 0 ? 1 : 0,
        consts,
      );
    });
    makeTile(low.address, low.stride, rank, size, lowTile(places.low[place], row));
  };
  return () => {
    for (const tile of adapters.mine) {
      let prepared = false;
      for (const [place, layer] of op.layers.entries()) {
        const entry = entryOf(places, tile.slot, layer), rank = words[entry];
        if (rank === 0) continue;
        if (!prepared) prepare(tile);
        prepared = true;
        project(tile, place, rank, words[entry + 1]);
      }
    }
  };
}

export function bindAdaptOut(op: OpOf<"adapt_out">, context: BindContext): Run {
  const { map, plan, thread, threads, adapters } = context;
  const { places, words, linear, consts } = bound(context);
  const { format } = places, f32 = format.kind === "f32";
  const layers = op.layers.map(({ index, out }) => {
    const groups = groupCount(plan.adapters.layers[index].shape[0]);
    return { index, out: placeOf(map, out), runs: groupRuns([groups], thread, threads) };
  });
  return () => {
    for (const { slot, row, size } of adapters.tiles) {
      for (const [place, { index, out, runs }] of layers.entries()) {
        const entry = entryOf(places, slot, index), rank = words[entry], B = words[entry + 2];
        if (rank === 0) continue;
        const x = lowTile(places.low[place], row), chunks = f32 ? rank : chunkCount(rank);
        const bytes = groupBytes(format, rank), argument = formatArgument(format, rank);
        for (const { from, to } of runs) {
          linear[size](
            B + from * bytes,
            f32 ? x.f32 : x.xa,
            0,
            x.xs,
            out.address + (row * out.stride + from * 4) * 4,
            out.stride,
            to - from,
            chunks,
            argument,
            1,
            consts,
          );
        }
      }
    }
  };
}
