/** Where everything lies in one of the engine's memories: plain numbers. What each memory holds is memory_map.ts's to say. */
import { CONSTS_BYTES, KV_BLOCK_TOKENS, logitsScratchBytes, TILE_SIZES } from "../kernels/abi.ts";
import {
  attentionScratchBytes,
  type KvFormat,
  kvPieceBytes,
  PART_TOKENS,
  partFloats,
} from "../kernels/kv_layout.ts";
import { CHUNK, chunkCount } from "../kernels/layout.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { PackedModel } from "../models/packed.ts";
import { blockSpec, blockSpecs, type ModelSpec } from "../models/spec.ts";
import type { Plan, PlanOp } from "../models/plan.ts";
import { operandsOf, withInner } from "../models/plan_operands.ts";
import { type AdapterPlaces, adapterPlaces, MAX_ADAPTERS, RUN_WORDS } from "./adapter_places.ts";
import { tileRowsOf } from "./attention_work.ts";
import { ropeRows } from "./rope_tables.ts";
import { CONTROL_BYTES } from "./threads.ts";

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
/** Tables `[rows][dims / 2]`. */
export interface RopePlace {
  readonly cos: number;
  readonly sin: number;
}
/** What belongs to one thread. */
export interface PrivatePlaces {
  /** Rows of one tile, activated or normalised, on their way into it: they stay in the cache. */
  readonly rows: BufferPlace;
  /** What it prepares for itself when the step is one tile (see Executor). */
  readonly tiles: Readonly<Record<string, TilePlace>>;
}

/** What lies at the same addresses in every memory. */
export interface CommonPlaces {
  /** The control block (threads.ts); that of the first memory is used. */
  readonly control: number;
  readonly consts: number;
  /** i32 arrays, one entry a row of the step (outRows: one an output). */
  readonly step: {
    readonly ids: number;
    readonly positions: number;
    readonly types: number;
    /** Rows of the rope tables. */
    readonly turns: number;
    readonly slots: number;
    readonly contexts: number;
    readonly tables: number;
    readonly outRows: number;
    /** `[MAX_ADAPTERS][RUN_WORDS]`: runs of rows with the same LoRA adapter. */
    readonly adapters: number;
  };
  /** KV block tables: `[maxSequences][blocksPerSequence]` i32. */
  readonly blockTables: number;
  readonly blocksPerSequence: number;
  /** `step` and `blockTables` lie in these addresses: what the leader writes for every step. */
  readonly stepPlace: { readonly begin: number; readonly end: number };
}

/** One memory: some of the model's tensors and what the operations on them need. */
export interface SegmentMap extends CommonPlaces {
  readonly bytes: number;
  readonly tensors: Readonly<Record<string, { readonly address: number; readonly entry: TensorEntry }>>;
  readonly buffers: Readonly<Record<string, BufferPlace>>;
  readonly tiles: Readonly<Record<string, TilePlace>>;
  /** By thread. */
  readonly own: readonly PrivatePlaces[];
  /** Tables of rotary positions by transformer block; blocks that turn alike share one. */
  readonly ropes: Readonly<Record<number, RopePlace>>;
  readonly kvFormat: KvFormat;
  /** Pools by transformer block. */
  readonly kv: Readonly<Record<number, { readonly k: number; readonly v: number }>>;
  /** Scratch of sampling: indices, i32 `[vocab]`, then `logitsScratchBytes(vocab)`; 0 where no logits are. */
  readonly candidates: number;
  /** Attention scratch of each thread. */
  readonly scratch: readonly number[];
  /** Partial softmaxes of split attention, `[rows][heads][maxParts]` records (kernels/kv_layout.ts). */
  readonly parts: PartsPlace;
  /** null where no layer can be adapted. */
  readonly adapters: AdapterPlaces | null;
}

export interface PartsPlace {
  readonly address: number;
  readonly rows: number;
  readonly maxParts: number;
}

/** Address behind a segment's last tensor; buffers and the KV pools follow. */
export const weightsEnd = ({ tensors }: SegmentMap): number =>
  Object.values(tensors).reduce((end, { address, entry }) => Math.max(end, address + entry.bytes), 0);

export interface SegmentOptions {
  readonly threads: number;
  readonly maxRows: number;
  readonly maxSequences: number;
  readonly kvBlocks: number;
  readonly contextLength: number;
  readonly kvFormat: KvFormat;
}

export const roundUp = (n: number, to: number): number => Math.ceil(n / to) * to;

/** Tensors in the order the operations read them, those of one linear operation together; then the rest. */
export function readingOrder(tensors: readonly TensorEntry[], ops: readonly PlanOp[]): TensorEntry[][] {
  const left = new Map(tensors.map((t) => [t.name, t]));
  const take = (name: string): TensorEntry[] => {
    const entry = left.get(name);
    left.delete(name);
    return entry ? [entry] : [];
  };
  const groups = withInner(ops).flatMap((op) => op.op === "linear" ? [op.weights.flatMap(take)] : []);
  return [...groups, ...[...left.values()].map((e) => [e])].filter((g) => g.length > 0);
}

/** `f` of those entries whose names are used. */
function mapUsed<T, U>(
  record: Readonly<Record<string, T>>,
  used: ReadonlySet<string>,
  f: (name: string, value: T) => U,
): Record<string, U> {
  return Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) => used.has(name) ? [[name, f(name, value)]] : []),
  );
}

/** KV bytes of one block of {@linkcode KV_BLOCK_TOKENS} tokens in one layer. */
export function kvBlockBytes(
  format: KvFormat,
  { kvHeads, headDim }: Pick<ModelSpec["attention"], "kvHeads" | "headDim">,
): { k: number; v: number } {
  const { k, v } = kvPieceBytes(format, headDim);
  return { k: kvHeads * k, v: kvHeads * v };
}

/** Rows whose context may be split between threads: a decode batch; fewer where contexts are very long. */
const SPLIT_ROWS = 16;
const SPLIT_BYTES = 8 << 20;

/** Room for the partial softmaxes of as many rows as are split, at least one; `heads`: most of a block. */
function partsSize(
  { heads, headDim }: { readonly heads: number; readonly headDim: number },
  contextLength: number,
) {
  const maxParts = Math.ceil(contextLength / PART_TOKENS);
  const rowBytes = heads * maxParts * partFloats(headDim) * 4;
  const rows = Math.max(1, Math.min(SPLIT_ROWS, Math.floor(SPLIT_BYTES / rowBytes)));
  return { rows, maxParts, bytes: rows * rowBytes };
}

/** The part of the model that one memory holds. */
export interface Part {
  readonly ops: readonly PlanOp[];
  readonly tensors: readonly TensorEntry[];
  /** Transformer blocks whose KV pools it holds. */
  readonly blocks: readonly number[];
}

/** Lays out one memory; says what it would need, however much that is. */
export function mapSegment(model: PackedModel, plan: Plan, part: Part, o: SegmentOptions): SegmentMap {
  let at = 1024; // address 0 stays unused: it means "none" in the kernels' calling convention
  const take = (bytes: number): number => {
    const address = at;
    at = roundUp(at + bytes, 64);
    return address;
  };
  const i32 = (n: number) => take(n * 4);
  const { spec } = model;
  const { headDim } = spec.attention;
  const sizes = blockSpecs(spec), heads = Math.max(...sizes.map(({ attention }) => attention.heads));

  // First, so that these addresses are the same in every memory.
  const control = take(CONTROL_BYTES);
  const consts = take(CONSTS_BYTES);
  const step = {
    ids: i32(o.maxRows),
    positions: i32(o.maxRows),
    types: i32(o.maxRows),
    turns: i32(o.maxRows),
    slots: i32(o.maxRows),
    contexts: i32(o.maxRows),
    tables: i32(o.maxRows),
    outRows: i32(o.maxRows),
    adapters: i32(MAX_ADAPTERS * RUN_WORDS),
  };
  const blocksPerSequence = Math.ceil(o.contextLength / KV_BLOCK_TOKENS);
  const blockTables = i32(o.maxSequences * blocksPerSequence);
  const stepPlace = { begin: step.ids, end: at };

  const tensors: Record<string, { address: number; entry: TensorEntry }> = {};
  for (const group of readingOrder(part.tensors, part.ops)) {
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
    const views = t.kinds.includes("views"), q8 = views || t.kinds.includes("q8");
    return {
      xa: q8 ? take(rows * padded) : 0,
      xb: views ? take(rows * padded) : 0,
      xs: q8 ? take(rows * (padded / CHUNK) * 4) : 0,
      f32: t.kinds.includes("f32") ? take(rows * t.cols * 4) : 0,
    };
  };
  const operands = part.ops.map(operandsOf);
  const usedBuffers = new Set(operands.flatMap((x) => x.buffers));
  const usedTiles = new Set(operands.flatMap((x) => x.tiles));
  const headNames = new Set(["logits", "states", "headIn", "head"]);
  const rowsOf = (name: string) => headNames.has(name) ? HEAD_ROWS : o.maxRows;
  const buffers = mapUsed(plan.buffers, usedBuffers, (name, cols) => buffer(cols, rowsOf(name)));
  const tiles = mapUsed(plan.tiles, usedTiles, (name, t) => tile(t, rowsOf(name)));
  const own = Array.from({ length: o.threads }, () => ({
    rows: buffer(Math.max(spec.hiddenSize, ...sizes.map(({ mlp }) => mlp.intermediateSize)), TILE_SIZES[0]),
    tiles: mapUsed(plan.tiles, usedTiles, (_, t) => tile(t, TILE_SIZES[0])),
  }));
  const ropePlaces = new Map<string, RopePlace>(), ropes: Record<number, RopePlace> = {};
  for (const op of part.ops) {
    const rope = op.op === "rope" ? sizes[op.block].attention.rope : null;
    if (op.op !== "rope" || !rope) continue;
    const bytes = ropeRows(spec, o.contextLength).count * (rope.dims / 2) * 4;
    const key = JSON.stringify(rope);
    if (!ropePlaces.has(key)) ropePlaces.set(key, { cos: take(bytes), sin: take(bytes) });
    ropes[op.block] = ropePlaces.get(key)!;
  }
  const candidates = usedBuffers.has("logits")
    ? take(spec.vocabSize * 4 + logitsScratchBytes(spec.vocabSize))
    : 0;
  const groupSizes = sizes.map(({ attention: { heads, kvHeads } }) => heads / kvHeads);
  const queries = Math.max(...groupSizes.map((size) => tileRowsOf(size) * size));
  const scratchBytes = attentionScratchBytes(queries, headDim);
  const scratch = Array.from({ length: part.blocks.length > 0 ? o.threads : 0 }, () => take(scratchBytes));
  const { bytes: partsBytes, ...partsRoom } = partsSize({ heads, headDim }, o.contextLength);
  const parts = { address: part.blocks.length > 0 ? take(partsBytes) : 0, ...partsRoom };
  const adapters = adapterPlaces(plan.adapters, part.ops, { ...o, take });
  // Last, so that pages of the pools that are never used are never touched.
  const kv: Record<number, { k: number; v: number }> = {};
  for (const block of part.blocks) {
    const { k, v } = kvBlockBytes(o.kvFormat, blockSpec(spec, block).attention);
    kv[block] = { k: take(o.kvBlocks * k), v: take(o.kvBlocks * v) };
  }
  return {
    bytes: at,
    control,
    consts,
    step,
    blockTables,
    blocksPerSequence,
    stepPlace,
    tensors,
    buffers,
    tiles,
    own,
    ropes,
    kvFormat: o.kvFormat,
    kv,
    candidates,
    scratch,
    parts,
    adapters,
  };
}
