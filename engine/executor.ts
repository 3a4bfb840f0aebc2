/**
 * Runs the plan on one thread: every thread executes the same list on its share of rows (linear layers), token rows or
 * attention items, and meets the others at `sync`. Worker threads only.
 */
import { type LinearKernel, TILE_SIZES, type TileSize } from "../kernels/abi.ts";
import {
  CHUNK,
  chunkCount,
  formatArgument,
  formatName,
  groupBytes,
  groupCount,
  type WeightFormat,
} from "../kernels/layout.ts";
import type { Kernels } from "../kernels/load.ts";
import type { BufferRef, Plan, PlanOp } from "../models/plan.ts";
import type { Activation, ModelSpec } from "../models/spec.ts";
import type { BufferPlace, MemoryMap } from "./memory_map.ts";
import { Waiter } from "./threads.ts";

/** A run of token rows that one batched kernel call handles. */
interface Tile {
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

/**
 * Weights that one pass over all tiles reads at a time: with several tiles (prefill) a slab stays in the L2 cache while
 * every tile uses it.
 */
const SLAB_BYTES = 192 * 1024;
/** Token rows of one attention call: small enough that threads share causal prefill evenly. */
const ATTENTION_ROWS = 4;

const ACTIVATION_KIND: Readonly<Record<Activation, number>> = { silu: 0, gelu: 1, gelu_tanh: 2, relu: 3 };

/** One bound operation: all rows of the step, all tiles, and this thread's share of the tiles. */
type Run = (rows: number, tiles: readonly Tile[], mine: readonly Tile[]) => void;

export interface ExecutorOptions {
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly kernels: Kernels;
  readonly memory: WebAssembly.Memory;
  readonly thread: number;
  readonly threads: number;
}

/**
 * The plan bound to addresses on one thread.
 *
 * A step of several tiles shares the work before a linear layer (norm, activation, quantisation) by rows. In a step of one
 * tile (decode) there is nothing to share: the other threads would only wait. There every thread prepares all rows for
 * itself, in memory of its own, which takes no longer and saves 8 of the 18 barriers of a block.
 */
export class Executor {
  readonly #o: ExecutorOptions;
  readonly #body: Run[];
  readonly #head: Run[];
  readonly #waiter: Waiter;
  readonly #floats: Float32Array;
  readonly #ints: Int32Array;

  constructor(options: ExecutorOptions) {
    this.#o = options;
    const { buffer } = options.memory;
    this.#waiter = new Waiter(new Int32Array(buffer, options.map.control, 16));
    this.#floats = new Float32Array(buffer);
    this.#ints = new Int32Array(buffer);
    this.#body = options.plan.body.map((op) => this.#bind(op));
    this.#head = options.plan.head.map((op) => this.#bind(op));
  }

  /** All blocks over the `rows` rows of the step; ends synchronised. */
  runBody(rows: number): void {
    this.#run(this.#body, rows);
  }

  /**
   * Logits of the step's output rows `from .. from + count - 1` (count <= HEAD_ROWS) in buffer `logits`. Returns on all
   * threads when they are there; the leader may read them until it calls runHead again.
   */
  runHead(from: number, count: number): void {
    if (this.#o.thread === 0) this.#gather(from, count);
    this.#waiter.barrier(this.#o.threads);
    this.#run(this.#head, count);
  }

  #run(list: readonly Run[], rows: number): void {
    const { thread, threads } = this.#o;
    const tiles = tilesOf(rows);
    const mine = tiles.filter((_, i) => i % threads === thread);
    for (const run of list) run(rows, tiles, mine);
  }

  /** Hidden rows that need logits, side by side. */
  #gather(from: number, count: number): void {
    const { map, spec } = this.#o;
    const hidden = map.buffers.hidden, out = map.buffers.headIn;
    for (let i = 0; i < count; i++) {
      const row = this.#ints[map.step.outRows / 4 + from + i];
      const source = hidden.address / 4 + row * hidden.stride;
      this.#floats.copyWithin(out.address / 4 + i * out.stride, source, source + spec.hiddenSize);
    }
  }

  #bind(op: PlanOp): Run {
    switch (op.op) {
      case "sync":
        return (_rows, tiles) => {
          if (!op.prepared || tiles.length > 1) this.#waiter.barrier(this.#o.threads);
        };
      case "embed":
        return this.#embed(op);
      case "prepare":
        return this.#prepare(op);
      case "linear":
        return this.#linear(op);
      case "rope":
        return this.#rope(op);
      case "kv_write":
        return this.#kvWrite(op);
      case "attention":
        return this.#attention(op);
      case "activate":
        return this.#activate(op);
    }
  }

  #place({ buffer, column }: BufferRef): BufferPlace {
    const { address, stride } = this.#o.map.buffers[buffer];
    return { address: address + column * 4, stride };
  }

  #embed(op: PlanOp & { op: "embed" }): Run {
    const { map, kernels } = this.#o;
    const { address, entry } = map.tensors[op.table];
    const out = this.#place(op.out);
    const embed = entry.format.kind === "f32" ? kernels.base.embed_f32 : kernels.base.embed_q8;
    return (_rows, _tiles, mine) => {
      for (const t of mine) {
        embed(
          address,
          map.step.ids + t.row * 4,
          t.size,
          entry.shape[1],
          out.address + t.row * out.stride * 4,
          out.stride,
        );
      }
    };
  }

  #prepare(op: PlanOp & { op: "prepare" }): Run {
    const { map, kernels, spec, blockChunks, thread } = this.#o;
    const own = map.own[thread];
    const sharedInput = this.#place(op.input);
    const ownInput = own.buffers[op.input.buffer] ?? sharedInput;
    const scale = op.scale ? map.tensors[op.scale].address : 0;
    const weight = op.norm ? map.tensors[op.norm.weight].address : 0;
    const bias = op.norm?.bias ? map.tensors[op.norm.bias].address : 0;
    const chunks = chunkCount(op.cols);
    const { base } = kernels;
    const { eps } = spec.norm;
    return (_rows, tiles, mine) => {
      const alone = tiles.length === 1;
      const input = alone ? ownInput : sharedInput;
      const normed = alone ? own.buffers.normed : map.buffers.normed;
      const tile = alone ? own.tiles[op.tile] : map.tiles[op.tile];
      for (const { row, size } of alone ? tiles : mine) {
        let x = input.address + row * input.stride * 4;
        let stride = input.stride;
        if (op.norm) {
          const out = normed.address + row * normed.stride * 4;
          if (spec.norm.kind === "rmsnorm") {
            base.rmsnorm(x, stride, weight, out, normed.stride, op.cols, size, eps);
          } else {
            base.layernorm(x, stride, weight, bias, out, normed.stride, op.cols, size, eps);
          }
          x = out;
          stride = normed.stride;
        }
        for (const kind of op.kinds) {
          if (kind === "f32") {
            base.interleave[size](x, stride, op.cols, scale, tile.f32 + row * op.cols * 4);
          } else {
            const bytes = row * chunks * CHUNK;
            base.quantize[size](
              x,
              stride,
              op.cols,
              chunks,
              blockChunks,
              scale,
              tile.xa + bytes,
              tile.xb + bytes,
              tile.xs + row * chunks * 4,
              map.consts,
            );
          }
        }
      }
    };
  }

  #linear(op: PlanOp & { op: "linear" }): Run {
    const { map, kernels, thread, threads } = this.#o;
    const parts = op.weights.map((name) => map.tensors[name]);
    const [{ address, entry }] = parts;
    const format = entry.format as WeightFormat; // the plan names packed layers only
    const [dOut, dIn] = entry.shape;
    const out = this.#place(op.out);
    const shared = map.tiles[op.tile], own = map.own[thread].tiles[op.tile];
    const f32 = format.kind === "f32";
    const chunks = f32 ? dIn : chunkCount(dIn);
    const groups = parts.reduce((n, p) => n + groupCount(p.entry.shape[0]), 0);
    const bytes = groupBytes(format, dIn), argument = formatArgument(format, dIn);
    const begin = Math.floor(groups * thread / threads), end = Math.floor(groups * (thread + 1) / threads);
    const slab = Math.max(1, Math.floor(SLAB_BYTES / bytes));
    const kernel = Object.fromEntries(
      TILE_SIZES.map((s) => [s, kernels.linear(formatName(format), s)]),
    ) as Record<
      TileSize,
      LinearKernel
    >;
    const bias = op.bias ? map.tensors[op.bias].address : 0;
    const accumulate = op.accumulate || bias !== 0 ? 1 : 0;
    return (rows, tiles) => {
      if (begin === end) return;
      if (bias !== 0) {
        const cols = Math.min(dOut, end * 4) - begin * 4;
        kernels.base.add_vector(
          out.address + begin * 16,
          out.stride,
          bias + begin * 16,
          cols,
          rows,
          op.accumulate ? 0 : 1,
        );
      }
      const alone = tiles.length === 1;
      const tile = alone ? own : shared;
      const step = alone ? end - begin : slab;
      for (let g = begin; g < end; g += step) {
        const count = Math.min(step, end - g);
        for (const t of tiles) {
          kernel[t.size](
            address + g * bytes,
            f32 ? tile.f32 + t.row * dIn * 4 : tile.xa + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xb + t.row * chunks * CHUNK,
            f32 ? 0 : tile.xs + t.row * chunks * 4,
            out.address + (t.row * out.stride + g * 4) * 4,
            out.stride,
            count,
            chunks,
            argument,
            accumulate,
            map.consts,
          );
        }
      }
    };
  }

  #rope(op: PlanOp & { op: "rope" }): Run {
    const { map, kernels, spec } = this.#o;
    const { headDim, rope } = spec.attention;
    const x = this.#place(op.x);
    return (_rows, _tiles, mine) => {
      for (const t of mine) {
        kernels.base.rope(
          x.address + t.row * x.stride * 4,
          x.stride,
          t.size,
          op.heads,
          headDim,
          rope!.dims,
          map.step.positions + t.row * 4,
          map.rope!.cos,
          map.rope!.sin,
        );
      }
    };
  }

  #kvWrite(op: PlanOp & { op: "kv_write" }): Run {
    const { map, kernels, spec } = this.#o;
    const { kvHeads, headDim } = spec.attention;
    const k = this.#place(op.k), v = this.#place(op.v);
    const kPool = map.kv.k + op.block * map.kv.layerBytesK, vPool = map.kv.v + op.block * map.kv.layerBytesV;
    return (_rows, _tiles, mine) => {
      for (const t of mine) {
        kernels.base.kv_write(
          k.address + t.row * k.stride * 4,
          k.stride,
          v.address + t.row * v.stride * 4,
          v.stride,
          t.size,
          kvHeads,
          headDim,
          map.step.slots + t.row * 4,
          kPool,
          vPool,
        );
      }
    };
  }

  #attention(op: PlanOp & { op: "attention" }): Run {
    const { map, kernels, spec, thread, threads } = this.#o;
    const { heads, kvHeads, headDim, scale, window } = spec.attention;
    const q = this.#place(op.q), out = this.#place(op.out);
    const kPool = map.kv.k + op.block * map.kv.layerBytesK, vPool = map.kv.v + op.block * map.kv.layerBytesV;
    const call = (from: number, to: number) =>
      kernels.base.attention(
        q.address,
        q.stride,
        out.address,
        out.stride,
        from,
        to,
        map.step.contexts,
        map.step.tables,
        kPool,
        vPool,
        kvHeads,
        heads / kvHeads,
        headDim,
        scale,
        window ?? 0,
        map.scratch[thread],
      );
    return (rows) => {
      const items = rows * kvHeads;
      if (rows <= ATTENTION_ROWS) {
        call(Math.floor(items * thread / threads), Math.floor(items * (thread + 1) / threads));
        return;
      }
      const size = ATTENTION_ROWS * kvHeads;
      for (let i = thread * size; i < items; i += threads * size) call(i, Math.min(items, i + size));
    };
  }

  #activate(op: PlanOp & { op: "activate" }): Run {
    const { map, kernels, spec, thread } = this.#o;
    const gate = op.gate ? this.#place(op.gate) : null;
    const up = this.#place(op.up), sharedOut = this.#place(op.out);
    const ownOut = map.own[thread].buffers[op.out.buffer];
    const kind = ACTIVATION_KIND[op.activation];
    return (_rows, tiles, mine) => {
      const alone = tiles.length === 1;
      const out = alone ? ownOut : sharedOut;
      for (const t of alone ? tiles : mine) {
        kernels.base.activate(
          kind,
          gate ? gate.address + t.row * gate.stride * 4 : 0,
          gate?.stride ?? 0,
          up.address + t.row * up.stride * 4,
          up.stride,
          out.address + t.row * out.stride * 4,
          out.stride,
          spec.mlp.intermediateSize,
          t.size,
        );
      }
    };
  }
}

/** cos and sin tables `[contextLength][dims / 2]`, computed in f64. */
export function fillRope(
  memory: WebAssembly.Memory,
  map: MemoryMap,
  spec: ModelSpec,
  contextLength: number,
): void {
  const { rope } = spec.attention;
  if (!rope || !map.rope) return;
  const half = rope.dims / 2;
  const cos = new Float32Array(memory.buffer, map.rope.cos, contextLength * half);
  const sin = new Float32Array(memory.buffer, map.rope.sin, contextLength * half);
  for (let p = 0; p < contextLength; p++) {
    for (let i = 0; i < half; i++) {
      const a = p * rope.inverseFrequencies[i];
      cos[p * half + i] = Math.cos(a) * rope.attentionFactor;
      sin[p * half + i] = Math.sin(a) * rope.attentionFactor;
    }
  }
}
