/**
 * Where everything lies in the engine's one shared WebAssembly memory: plain numbers, computed once on the main thread and
 * posted to every worker.
 */
import { OatmillError } from "../errors.ts";
import { CONSTS_BYTES, KV_BLOCK_TOKENS, TILE_SIZES } from "../kernels/abi.ts";
import { CHUNK, chunkCount } from "../kernels/layout.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { PackedModel } from "../models/packed.ts";
import type { Plan } from "../models/plan.ts";
import { CONTROL_BYTES } from "./threads.ts";

/** Largest WebAssembly memory with 32-bit addresses. */
const MAX_MEMORY_BYTES = 2 ** 32 - 65536;
/** Rows whose logits are held at once. */
export const HEAD_ROWS = 32;

export interface BufferPlace {
  readonly address: number;
  /** Floats from row to row. */
  readonly stride: number;
}
export interface TilePlace {
  readonly xa: number;
  readonly xb: number;
  readonly xs: number;
  readonly f32: number;
}
/** What a thread prepares for itself when the step is one tile (see Executor). */
export interface PrivatePlaces {
  readonly buffers: Readonly<Record<string, BufferPlace>>;
  readonly tiles: Readonly<Record<string, TilePlace>>;
}
export interface MemoryMap {
  readonly bytes: number;
  readonly control: number;
  readonly consts: number;
  readonly tensors: Readonly<Record<string, { readonly address: number; readonly entry: TensorEntry }>>;
  readonly buffers: Readonly<Record<string, BufferPlace>>;
  readonly tiles: Readonly<Record<string, TilePlace>>;
  /** By thread. */
  readonly own: readonly PrivatePlaces[];
  readonly rope: { readonly cos: number; readonly sin: number } | null;
  readonly kv: {
    readonly k: number;
    readonly v: number;
    readonly layerBytesK: number;
    readonly layerBytesV: number;
  };
  /** i32 arrays, one entry a row of the step (outRows: one an output). */
  readonly step: {
    readonly ids: number;
    readonly positions: number;
    readonly slots: number;
    readonly contexts: number;
    readonly tables: number;
    readonly outRows: number;
  };
  /** KV block tables: `[maxSequences][blocksPerSequence]` i32. */
  readonly blockTables: number;
  readonly blocksPerSequence: number;
  /** Indices that sampling selects, i32 `[vocab]`. */
  readonly candidates: number;
  /** Attention scratch of each thread. */
  readonly scratch: readonly number[];
}

export interface MapOptions {
  readonly threads: number;
  readonly maxRows: number;
  readonly maxSequences: number;
  readonly kvBlocks: number;
  readonly contextLength: number;
}

const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

/** Tensors in the order the plan reads them, those of one linear operation together; then the rest. */
function readingOrder(model: PackedModel, plan: Plan): TensorEntry[][] {
  const left = new Map(model.tensors.map((t) => [t.name, t]));
  const take = (name: string): TensorEntry[] => {
    const entry = left.get(name);
    left.delete(name);
    return entry ? [entry] : [];
  };
  const groups = [...plan.body, ...plan.head].flatMap((op) =>
    op.op === "linear" ? [op.weights.flatMap(take)] : []
  );
  return [...groups, ...[...left.values()].map((e) => [e])].filter((g) => g.length > 0);
}

function mapValues<T, U>(
  record: Readonly<Record<string, T>>,
  f: (name: string, value: T) => U,
): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(name, value)]));
}

/** KV bytes of one block of {@linkcode KV_BLOCK_TOKENS} tokens in one layer. */
export function kvBlockBytes(kvHeads: number, headDim: number): { k: number; v: number } {
  const per = kvHeads * KV_BLOCK_TOKENS * 4;
  return { k: per * headDim, v: per * roundUp(headDim, 4) };
}

/**
 * Lays out the memory.
 * @throws {OatmillError} too_large when a 32-bit memory cannot hold it
 */
export function mapMemory(model: PackedModel, plan: Plan, o: MapOptions): MemoryMap {
  let at = 1024; // address 0 stays unused: it means "none" in the kernels' calling convention
  const take = (bytes: number): number => {
    const address = at;
    at = roundUp(at + bytes, 64);
    return address;
  };
  const { spec } = model;
  const { kvHeads, heads, headDim, rope } = spec.attention;

  const control = take(CONTROL_BYTES);
  const consts = take(CONSTS_BYTES);
  const tensors: Record<string, { address: number; entry: TensorEntry }> = {};
  for (const group of readingOrder(model, plan)) {
    let address = take(group.reduce((n, e) => n + e.bytes, 0));
    for (const entry of group) {
      tensors[entry.name] = { address, entry };
      address += entry.bytes; // packed layers are whole 16-byte vectors
    }
  }

  const buffer = (cols: number, rows: number): BufferPlace => {
    const stride = roundUp(cols, 16);
    return { address: take(rows * stride * 4), stride };
  };
  const tile = (t: Plan["tiles"][string], rows: number): TilePlace => {
    const padded = chunkCount(t.cols) * CHUNK;
    const q8 = t.kinds.includes("q8");
    return {
      xa: q8 ? take(rows * padded) : 0,
      xb: q8 ? take(rows * padded) : 0,
      xs: q8 ? take(rows * (padded / CHUNK) * 4) : 0,
      f32: t.kinds.includes("f32") ? take(rows * t.cols * 4) : 0,
    };
  };
  const headNames = new Set(["logits", "headIn", "head"]);
  const rowsOf = (name: string) => headNames.has(name) ? HEAD_ROWS : o.maxRows;
  const buffers = mapValues(plan.buffers, (name, cols) => buffer(cols, rowsOf(name)));
  buffers.normed = buffer(spec.hiddenSize, Math.max(o.maxRows, HEAD_ROWS));
  const tiles = mapValues(plan.tiles, (name, t) => tile(t, rowsOf(name)));
  const own = Array.from({ length: o.threads }, () => ({
    buffers: {
      normed: buffer(spec.hiddenSize, TILE_SIZES[0]),
      act: buffer(spec.mlp.intermediateSize, TILE_SIZES[0]),
    },
    tiles: mapValues(plan.tiles, (_, t) => tile(t, TILE_SIZES[0])),
  }));
  const ropeBytes = rope ? o.contextLength * (rope.dims / 2) * 4 : 0;
  const ropePlace = rope ? { cos: take(ropeBytes), sin: take(ropeBytes) } : null;
  const i32 = (n: number) => take(n * 4);
  const step = {
    ids: i32(o.maxRows),
    positions: i32(o.maxRows),
    slots: i32(o.maxRows),
    contexts: i32(o.maxRows),
    tables: i32(o.maxRows),
    outRows: i32(o.maxRows),
  };
  const blocksPerSequence = Math.ceil(o.contextLength / KV_BLOCK_TOKENS);
  const blockTables = i32(o.maxSequences * blocksPerSequence);
  const candidates = i32(spec.vocabSize);
  const scratch: number[] = [];
  for (let t = 0; t < o.threads; t++) {
    scratch.push(take((heads / kvHeads) * (roundUp(o.contextLength, 16) + 64) * 4 + 4096));
  }
  // Last, so that pages of the pool that are never used are never touched.
  const block = kvBlockBytes(kvHeads, headDim);
  const layerBytesK = o.kvBlocks * block.k, layerBytesV = o.kvBlocks * block.v;
  const kv = {
    k: take(spec.blocks * layerBytesK),
    v: take(spec.blocks * layerBytesV),
    layerBytesK,
    layerBytesV,
  };

  if (at > MAX_MEMORY_BYTES) {
    throw new OatmillError(
      "too_large",
      `Model "${model.name}" needs ${(at / 2 ** 30).toFixed(1)} GiB of memory, the limit is 4 GiB: ` +
        `use a higher rate or int4 values`,
    );
  }
  return {
    bytes: at,
    control,
    consts,
    tensors,
    buffers,
    tiles,
    own,
    rope: ropePlace,
    kv,
    step,
    blockTables,
    blocksPerSequence,
    candidates,
    scratch,
  };
}
