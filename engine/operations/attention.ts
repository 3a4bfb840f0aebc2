/** Attention: rotary positions, the KV cache, and the sum over it, shared by threads as items (a row's KV heads). */
import { type BindContext, type OpOf, placeOf, type Run } from "./bound.ts";

/** Token rows of one attention call: small enough that threads share causal prefill evenly. */
const ATTENTION_ROWS = 4;

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
  const { map, kernels, spec } = context;
  const { kvHeads, headDim } = spec.attention;
  const k = placeOf(map, op.k), v = placeOf(map, op.v);
  const pool = map.kv[op.block];
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
        pool.k,
        pool.v,
      );
    }
  };
}

export function bindAttention(op: OpOf<"attention">, context: BindContext): Run {
  const { map, kernels, spec, thread, threads } = context;
  const { heads, kvHeads, headDim, scale, window } = spec.attention;
  const q = placeOf(map, op.q), out = placeOf(map, op.out);
  const pool = map.kv[op.block];
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
      pool.k,
      pool.v,
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
