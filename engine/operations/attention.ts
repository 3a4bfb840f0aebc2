/** Attention: rotary positions, the KV cache, and the sum over it, shared by threads as attention_work.ts says. */
import { blockSpec, blockSpecs, type ModelSpec } from "../../models/spec.ts";
import {
  type AttentionCall,
  type AttentionStep,
  type AttentionWork,
  shareAttention,
} from "../attention_work.ts";
import type { SegmentMap } from "../segment_map.ts";
import { type BindContext, type OpOf, placeOf, type Run } from "./bound.ts";

export function bindRope(op: OpOf<"rope">, context: BindContext): Run {
  const { map, kernels, spec } = context;
  const { headDim, rope } = blockSpec(spec, op.block).attention;
  const x = placeOf(map, op.x), { cos, sin } = map.ropes[op.block];
  return (_rows, _tiles, mine) => {
    for (const t of mine) {
      kernels.base.rope(
        x.address + t.row * x.stride * 4,
        x.stride,
        t.size,
        op.heads,
        headDim,
        rope!.dims,
        map.step.turns + t.row * 4,
        cos,
        sin,
      );
    }
  };
}

export function bindKvWrite(op: OpOf<"kv_write">, context: BindContext): Run {
  const { map, spec, thread } = context;
  const kernels = context.kernels.attention(map.kvFormat);
  const { kvHeads, headDim } = blockSpec(spec, op.block).attention;
  const k = placeOf(map, op.k), v = placeOf(map, op.v);
  const pool = map.kv[op.block];
  return (_rows, _tiles, mine) => {
    for (const t of mine) {
      kernels.kv_write(
        k.address + t.row * k.stride * 4,
        k.stride,
        v.address + t.row * v.stride * 4,
        v.stride,
        t.size,
        kvHeads,
        headDim,
        map.step.slots + t.row * 4,
        pool.k,
        pool.v,
        map.scratch[thread],
      );
    }
  };
}

/** How many heads a block has, what they share and see: blocks that are equal in it share their work alike. */
type BlockWork = Pick<AttentionStep, "kvHeads" | "groupSize" | "window">;
const blockWork = ({ attention: { heads, kvHeads, window } }: ModelSpec): BlockWork => ({
  kvHeads,
  groupSize: heads / kvHeads,
  window: window ?? 0,
});

/** How the step's attention is shared: found once a step for each kind of blocks. */
export class StepAttention {
  readonly #step: Pick<AttentionStep, "threads" | "splitRows">;
  readonly #kinds: readonly BlockWork[];
  /** By block: which of `#kinds` it is. */
  readonly #kind: readonly number[];
  #works: readonly AttentionWork[] = [];

  /** @param ints view of a memory that holds the step's rows, laid out as in `map` */
  constructor(
    private readonly ints: Int32Array,
    private readonly map: SegmentMap,
    { spec, threads }: { readonly spec: ModelSpec; readonly threads: number },
  ) {
    this.#step = { threads, splitRows: map.parts.rows };
    const all = blockSpecs(spec).map(blockWork), keys = all.map((work) => JSON.stringify(work));
    const kinds = [...new Set(keys)];
    this.#kind = keys.map((key) => kinds.indexOf(key));
    this.#kinds = kinds.map((key) => all[keys.indexOf(key)]);
  }

  begin(rows: number): void {
    const array = (address: number) => this.ints.subarray(address / 4, address / 4 + rows);
    const { contexts, tables } = this.map.step;
    const step = { ...this.#step, contexts: array(contexts), tables: array(tables) };
    this.#works = this.#kinds.map((kind) => shareAttention({ ...step, ...kind }));
  }

  workOf(block: number): AttentionWork {
    return this.#works[this.#kind[block]];
  }
}

export function bindAttention(op: OpOf<"attention">, context: BindContext): Run {
  const { map, spec, thread, threads, attention, barrier } = context;
  const kernels = context.kernels.attention(map.kvFormat);
  const { heads, kvHeads, headDim, scale, window: some, softCap = 0 } = blockSpec(spec, op.block).attention;
  const window = some ?? 0;
  const q = placeOf(map, op.q), out = placeOf(map, op.out);
  const pool = map.kv[op.block], { parts } = map;
  const call = (c: AttentionCall, split: boolean) =>
    kernels.attention(
      q.address,
      q.stride,
      out.address,
      out.stride,
      c.row,
      c.rows,
      c.kvHeadBegin,
      c.kvHeadEnd,
      map.step.contexts,
      map.step.tables,
      pool.k,
      pool.v,
      kvHeads,
      heads / kvHeads,
      headDim,
      scale,
      window,
      softCap,
      map.scratch[thread],
      c.partBegin,
      c.partEnd,
      split ? parts.address : 0,
      parts.maxParts,
    );
  return (rows) => {
    const { calls, split } = attention.workOf(op.block);
    for (const c of calls[thread]) call(c, split);
    if (!split) return;
    barrier();
    const items = rows * heads;
    kernels.attention_merge(
      parts.address,
      parts.maxParts,
      out.address,
      out.stride,
      Math.floor(items * thread / threads),
      Math.floor(items * (thread + 1) / threads),
      map.step.contexts,
      heads,
      headDim,
      window,
      map.scratch[thread],
    );
  };
}
