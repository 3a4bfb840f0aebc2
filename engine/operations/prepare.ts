/** Operations on token rows: the embedding, the input of linear layers, the activation, norms and caps by themselves. */
import {
  CHUNK,
  chunkCount,
  columnParts,
  groupBytes,
  groupCount,
  type WeightFormat,
} from "../../kernels/layout.ts";
import type { NormRef } from "../../models/plan.ts";
import type { Activation } from "../../models/spec.ts";
import type { BufferPlace } from "../segment_map.ts";
import { type BindContext, type LinearContext, type OpOf, placeOf, type Run } from "./bound.ts";

const ACTIVATION_KIND: Readonly<Record<Activation, number>> = {
  silu: 0,
  gelu: 1,
  gelu_tanh: 2,
  relu: 3,
  quick_gelu: 4,
};

export function bindEmbed(op: OpOf<"embed">, context: BindContext): Run {
  const { map, kernels } = context;
  const { address, entry } = map.tensors[op.table];
  const out = placeOf(map, op.out);
  const embed = entry.format.kind === "f32" ? kernels.base.embed_f32 : kernels.base.embed_q8;
  const format = entry.format as WeightFormat; // the plan names a packed table
  const groups = groupCount(entry.shape[0]);
  const parts = columnParts(format, entry.shape[1]);
  const { ids: token, positions: position, types: type } = map.step;
  const indices = { token, position, type }[op.by], accumulate = op.accumulate ? 1 : 0;
  return (_rows, _tiles, mine) => {
    for (const t of mine) {
      let table = address;
      for (const { chunk, cols } of parts) {
        const x = out.address + (t.row * out.stride + chunk * CHUNK) * 4;
        embed(table, groups, indices + t.row * 4, t.size, cols, x, out.stride, op.factor, accumulate);
        table += groups * groupBytes(format, cols);
      }
    }
  };
}

/** Writes rows, activated or normalised, to `out` with its stride: addresses, strides in floats. */
type Step = (x: number, xStride: number, row: number, out: BufferPlace, rows: number) => void;

export function bindPrepare(op: OpOf<"prepare">, context: LinearContext): Run {
  const { map, kernels, blockChunks, thread } = context;
  const own = map.own[thread];
  const input = placeOf(map, op.input);
  const scale = op.scale ? map.tensors[op.scale].address : 0;
  const step = bindStep(op, context);
  const chunks = chunkCount(op.cols);
  const { base } = kernels;
  return (_rows, tiles, mine) => {
    const alone = tiles.length === 1;
    const tile = alone ? own.tiles[op.tile] : map.tiles[op.tile];
    for (const { row, size } of alone ? tiles : mine) {
      let x = input.address + row * input.stride * 4;
      let { stride } = input;
      if (step) {
        step(x, stride, row, own.rows, size);
        x = own.rows.address;
        stride = own.rows.stride;
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
            kind === "views" ? tile.xb + bytes : 0,
            tile.xs + row * chunks * 4,
            map.consts,
          );
        }
      }
    }
  };
}

/** What happens to rows before they become a tile, or null. */
export function bindStep(
  { activation, norm, chosen, cols }: Pick<OpOf<"prepare">, "activation" | "norm" | "chosen" | "cols">,
  context: LinearContext,
): Step | null {
  const { map, kernels: { base }, routing } = context;
  if (chosen) {
    return (x, stride, row, out, rows) => { // x is row `row` of the input, if rows were taken in order
      for (let i = 0; i < rows; i++) {
        const from = x + (routing!.rows[row + i] - row) * stride * 4;
        base.add_vector(out.address + i * out.stride * 4, out.stride, from, cols, 1, 1);
      }
    };
  }
  if (norm) {
    const normalise = bindNormalise(norm, cols, context);
    return (x, stride, _row, out, rows) => normalise(x, stride, out.address, out.stride, rows);
  }
  if (!activation) return null;
  const kind = ACTIVATION_KIND[activation.kind];
  const gate = activation.gate ? placeOf(map, activation.gate) : { address: 0, stride: 0 };
  return (x, stride, row, out, rows) =>
    base.activate(
      kind,
      gate.address && gate.address + row * gate.stride * 4,
      gate.stride,
      x,
      stride,
      out.address,
      out.stride,
      cols,
      rows,
    );
}

/** The model's norm with these weights, on `rows` rows of `cols` floats; addresses, strides in floats. */
export function bindNormalise(
  norm: NormRef,
  cols: number,
  { map, kernels: { base }, spec }: LinearContext,
): (x: number, xStride: number, out: number, outStride: number, rows: number) => void {
  const weight = map.tensors[norm.weight].address;
  const bias = norm.bias ? map.tensors[norm.bias].address : 0;
  if (!spec) throw new TypeError(`Cannot normalise by "${norm.weight}": the model has no norms`);
  const { kind, eps } = spec.norm;
  return kind === "rmsnorm"
    ? (x, xStride, out, outStride, rows) => base.rmsnorm(x, xStride, weight, out, outStride, cols, rows, eps)
    : (x, xStride, out, outStride, rows) =>
      base.layernorm(x, xStride, weight, bias, out, outStride, cols, rows, eps);
}

export function bindNorm(op: OpOf<"norm">, context: BindContext): Run {
  const { map, spec: { hiddenSize: cols }, thread, kernels: { base } } = context;
  const input = placeOf(map, op.input), target = placeOf(map, op.out);
  const normalise = bindNormalise(op.norm, cols, context);
  const { rows: own } = map.own[thread];
  return (_rows, _tiles, mine) => {
    for (const { row, size } of mine) {
      const x = input.address + row * input.stride * 4, y = target.address + row * target.stride * 4;
      if (!op.accumulate) {
        normalise(x, input.stride, y, target.stride, size);
        continue;
      }
      normalise(x, input.stride, own.address, own.stride, size);
      for (let i = 0; i < size; i++) {
        base.add_vector(
          y + i * target.stride * 4,
          target.stride,
          own.address + i * own.stride * 4,
          cols,
          1,
          0,
        );
      }
    }
  };
}

export function bindCopy(op: OpOf<"copy">, { map, kernels: { base } }: BindContext): Run {
  const from = placeOf(map, op.input), to = placeOf(map, op.out);
  return (_rows, _tiles, mine) => {
    for (const { row, size } of mine) {
      for (let r = row; r < row + size; r++) {
        const x = from.address + r * from.stride * 4, y = to.address + r * to.stride * 4;
        base.add_vector(y, to.stride, x, op.cols, 1, 1);
      }
    }
  };
}

/** The heads of a row are rows of the kernel. */
export function bindNormHeads(op: OpOf<"norm_heads">, { map, spec, kernels: { base } }: BindContext): Run {
  const { norm: { eps }, attention: { headDim } } = spec;
  const x = placeOf(map, op.x), weight = map.tensors[op.weight].address;
  return (_rows, _tiles, mine) => {
    for (const { row, size } of mine) {
      for (let r = row; r < row + size; r++) {
        const at = x.address + r * x.stride * 4;
        base.rmsnorm(at, headDim, weight, at, headDim, headDim, op.heads, eps);
      }
    }
  };
}

export function bindSoftCap(op: OpOf<"soft_cap">, { map, kernels: { base } }: BindContext): Run {
  const x = placeOf(map, op.x);
  return (_rows, _tiles, mine) => {
    for (const { row, size } of mine) {
      base.soft_cap(x.address + row * x.stride * 4, x.stride, op.cols, size, op.cap);
    }
  };
}
