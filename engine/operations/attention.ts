/** Attention: rotary positions, the KV cache, and the sum over it, shared by threads as attention_work.ts says. */
import type { ModelSpec } from "../../models/spec.ts";
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
  const { headDim, rope } = spec.attention;
  const x = placeOf(map, op.x);
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

export function bindKvWrite(op: OpOf<"kv_write">, context: BindContext): Run {
  const { map, spec, thread } = context;
  const kernels = context.kernels.attention(map.kvFormat);
  const { kvHeads, headDim } = spec.attention;
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

/** How the step's attention is shared: the same for all layers, so it is found once a step. */
export class StepAttention {
  readonly #step: Omit<AttentionStep, "contexts" | "tables">;
  #work: AttentionWork = { calls: [], split: false };

  /** @param ints view of a memory that holds the step's rows, laid out as in `map` */
  constructor(
    private readonly ints: Int32Array,
    private readonly map: SegmentMap,
    { spec, threads }: { readonly spec: ModelSpec; readonly threads: number },
  ) {
    const { heads, kvHeads, window } = spec.attention;
    const splitRows = map.parts.rows;
    this.#step = { kvHeads, groupSize: heads / kvHeads, window: window ?? 0, threads, splitRows };
  }

  begin(rows: number): void {
    const array = (address: number) => this.ints.subarray(address / 4, address / 4 + rows);
    const { contexts, tables } = this.map.step;
    this.#work = shareAttention({ ...this.#step, contexts: array(contexts), tables: array(tables) });
  }

  get work(): AttentionWork {
    return this.#work;
  }
}

export function bindAttention(op: OpOf<"attention">, context: BindContext): Run {
  const { map, spec, thread, threads, attention, barrier } = context;
  const kernels = context.kernels.attention(map.kvFormat);
  const { heads, kvHeads, headDim, scale } = spec.attention;
  const window = spec.attention.window ?? 0;
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
      map.scratch[thread],
      c.partBegin,
      c.partEnd,
      split ? parts.address : 0,
      parts.maxParts,
    );
  return (rows) => {
    const { calls, split } = attention.work;
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
