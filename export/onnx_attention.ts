/** Causal attention over sequences of any number and length, as ONNX nodes. */
import { capped, rmsNorm, turn } from "../compress/forward/block_graph.ts";
import type { OnnxGraph } from "../compress/linalg/onnx_graph.ts";
import type { ModelSpec, RopeSpec } from "../models/spec.ts";
import type { DataFile } from "./onnx_data.ts";

/** A dimension: a number (-1: what is left), or the name of a vector of one integer. */
type Dimension = number | string;

/** Sizes that are known when the graph runs. */
export interface SequenceShape {
  readonly batch: string;
  readonly length: string;
  /** 0 to length - 1 */
  readonly positions: string;
  reshape(x: string, ...shape: Dimension[]): string;
}

/** @param ids [batch, length] */
export function sequenceShape(g: OnnxGraph, ids: string): SequenceShape {
  const both = g.node("Shape", [ids]);
  const at = (i: number) => g.node("Slice", [both, g.integers([i]), g.integers([i + 1])]);
  const number = (x: string) => g.node("Squeeze", [x]);
  const batch = at(0), length = at(1);
  const positions = g.node("Range", [number(g.integers([0])), number(length), number(g.integers([1]))]);
  const part = (d: Dimension) => typeof d === "number" ? g.integers([d]) : d;
  const reshape = (x: string, ...shape: Dimension[]) =>
    g.node("Reshape", [x, g.node("Concat", shape.map(part), { axis: { int: 0 } })]);
  return { batch, length, positions, reshape };
}

export interface AttentionOptions {
  /** The block's own. */
  readonly spec: ModelSpec;
  readonly shape: SequenceShape;
  /** Before the names of the block's weights. */
  readonly prefix: string;
  readonly data: DataFile;
}

/** Attention from q [tokens, heads x headDim], k and v [tokens, kvHeads x headDim] to [tokens, heads x headDim]. */
export function attentionGraph(
  g: OnnxGraph,
  { spec, shape, prefix, data }: AttentionOptions,
): (q: string, k: string, v: string) => string {
  const { heads, kvHeads, headDim, scale, rope, headNorms, softCap, window } = spec.attention;
  const { batch, length, reshape } = shape, groups = heads / kvHeads;
  const permute = (x: string, ...perm: number[]) => g.node("Transpose", [x], { perm: { ints: perm } });
  const beside = (x: string) => g.node("Unsqueeze", [x, g.integers([2])]); // for all query heads of a group
  const turns = rope && ropeTurns(g, rope, { shape, data });
  const turned = (x: string, count: number, norm: string) => {
    const split = reshape(x, batch, length, count, headDim);
    const normed = headNorms ? rmsNorm(g, split, prefix + norm, spec.norm.eps) : split;
    return turns ? turn(g, normed, { dims: rope.dims, headDim, ...turns }) : normed;
  };
  return (q, k, v) => {
    const scaled = g.node("Mul", [turned(q, heads, "qNorm"), g.scalar(scale)]);
    const queries = permute(reshape(scaled, batch, length, kvHeads, groups, headDim), 0, 2, 3, 1, 4);
    const keys = beside(permute(turned(k, kvHeads, "kNorm"), 0, 2, 3, 1));
    const values = beside(permute(reshape(v, batch, length, kvHeads, headDim), 0, 2, 1, 3));
    const scores = capped(g, g.node("MatMul", [queries, keys]), softCap);
    const masked = g.node("Add", [scores, maskGraph(g, shape, window)]);
    const mixed = g.node("MatMul", [g.node("Softmax", [masked], { axis: { int: -1 } }), values]);
    return reshape(permute(mixed, 0, 3, 1, 2, 4), -1, heads * headDim);
  };
}

/** Added to scores of what a token does not see: far below any of them, and finite. */
const UNSEEN = -1e30;

/** [length, length]: 0 where the query (row) sees the key (column). */
function maskGraph(g: OnnxGraph, { positions }: SequenceShape, window: number | null): string {
  const row = g.node("Unsqueeze", [positions, g.integers([1])]);
  const column = g.node("Unsqueeze", [positions, g.integers([0])]);
  const before = g.node("Sub", [row, column]);
  const past = g.node("GreaterOrEqual", [before, g.integers([0])]);
  const seen = window === null ? past : g.node("And", [past, g.node("Less", [before, g.integers([window])])]);
  return g.node("Where", [seen, g.scalar(0), g.scalar(UNSEEN)]);
}

const FLOAT = 1; // TensorProto.DataType

/** cos and sin of all positions, [length, 1, dims / 2]. */
function ropeTurns(
  g: OnnxGraph,
  { inverseFrequencies, attentionFactor, long }: RopeSpec,
  { shape: { length, positions }, data }: Pick<AttentionOptions, "shape" | "data">,
): { readonly cos: string; readonly sin: string } {
  const short = data.vector(g, inverseFrequencies);
  const frequencies = long
    ? g.node("Where", [
      g.node("Greater", [length, g.integers([long.beyond])]),
      data.vector(g, long.inverseFrequencies),
      short,
    ])
    : short;
  const floats = g.node("Cast", [positions], { to: { int: FLOAT } });
  const angles = g.node("Mul", [g.node("Unsqueeze", [floats, g.integers([1, 2])]), frequencies]);
  const scaled = (x: string) => attentionFactor === 1 ? x : g.node("Mul", [x, g.scalar(attentionFactor)]);
  return { cos: scaled(g.node("Cos", [angles])), sin: scaled(g.node("Sin", [angles])) };
}
