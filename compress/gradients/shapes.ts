/** Shapes of a graph's values from those of its inputs: one rule for each ONNX operator that blocks and their gradients use. */
import type { Attribute, Dimension, OnnxNode } from "../linalg/onnx_graph.ts";

export type Shape = readonly Dimension[];

/** What a rule may ask of the graph. */
export interface ShapeSource {
  shape(value: string): Shape;
  /** A constant vector of integers, or what a Shape step answers. */
  integers(value: string): readonly Dimension[];
}

type ShapeRule = (node: OnnxNode, of: ShapeSource) => readonly Shape[];

export const int = (a: Attribute | undefined, absent: number): number => a && "int" in a ? a.int : absent;
export const ints = (a: Attribute | undefined): readonly number[] => a && "ints" in a ? a.ints : [];

/** An axis counted from the front. */
export const axisOf = (axis: number, shape: Shape): number => axis < 0 ? axis + shape.length : axis;

export const sameShape = (a: Shape, b: Shape): boolean =>
  a.length === b.length && a.every((d, i) => d === b[i]);

/** ONNX's (NumPy's) broadcasting; a free dimension stands against itself or 1. */
export function broadcast(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1, y = b[i - rank + b.length] ?? 1;
    if (x === 1) return y;
    if (y !== 1 && y !== x) throw new RangeError(`Cannot broadcast [${a}] and [${b}]`);
    return x;
  });
}

const like: ShapeRule = ({ inputs }, of) => [of.shape(inputs[0])];
const broadcasting: ShapeRule = ({ inputs }, of) => [inputs.map((name) => of.shape(name)).reduce(broadcast)];

const product: ShapeRule = ({ inputs: [a, b], attributes: { transA, transB } }, of) => {
  const turned = (shape: Shape, by: Attribute | undefined) =>
    int(by, 0) ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : shape;
  const A = turned(of.shape(a), transA), B = turned(of.shape(b), transB);
  if (A.at(-1) !== B.at(-2)) throw new RangeError(`Cannot multiply [${A}] by [${B}]`);
  return [[...broadcast(A.slice(0, -2), B.slice(0, -2)), A.at(-2)!, B.at(-1)!]];
};

/** Axes of a reduction: an attribute (ReduceMean) or the second input (ReduceSum); absent: all. */
export function reducedAxes({ inputs, attributes }: OnnxNode, of: ShapeSource): number[] {
  const shape = of.shape(inputs[0]);
  const given = inputs[1] ? of.integers(inputs[1]).map(Number) : ints(attributes.axes);
  return given.length > 0 ? given.map((axis) => axisOf(axis, shape)) : shape.map((_, i) => i);
}

const reduction: ShapeRule = (node, of) => {
  const shape = of.shape(node.inputs[0]), axes = reducedAxes(node, of);
  return [
    int(node.attributes.keepdims, 1)
      ? shape.map((d, i) => axes.includes(i) ? 1 : d)
      : shape.filter((_, i) => !axes.includes(i)),
  ];
};

const count = (shape: Shape): number => shape.reduce<number>((n, d) => typeof d === "number" ? n * d : n, 1);

/** -1 becomes the free dimension when there is one, else what is left. */
const reshape: ShapeRule = ({ inputs: [x, to] }, of) => {
  const from = of.shape(x), wanted = of.integers(to), free = from.filter((d) => typeof d === "string");
  const given = -wanted.reduce<number>((n, d) => typeof d === "number" ? n * d : n, 1);
  return [wanted.map((d) => d !== -1 ? d : free[0] ?? count(from) / given)];
};

/** From, to and axis of a Slice: one axis, steps of 1. */
export function sliceOf({ inputs: [x, starts, ends, axes] }: OnnxNode, of: ShapeSource) {
  const shape = of.shape(x), [axis, ...more] = of.integers(axes).map(Number);
  const size = shape[axisOf(axis, shape)];
  if (more.length > 0 || typeof size !== "number") throw new RangeError("A Slice takes one known axis");
  const at = (bound: Dimension) =>
    Math.max(0, Math.min(size, Number(bound) < 0 ? Number(bound) + size : Number(bound)));
  return { axis: axisOf(axis, shape), from: at(of.integers(starts)[0]), to: at(of.integers(ends)[0]) };
}

export const SHAPES: Readonly<Record<string, ShapeRule>> = {
  Add: broadcasting,
  Sub: broadcasting,
  Mul: broadcasting,
  Div: broadcasting,
  Equal: broadcasting,
  Sqrt: like,
  Neg: like,
  Exp: like,
  Erf: like,
  Tanh: like,
  Relu: like,
  Sign: like,
  Sigmoid: like,
  Softmax: like,
  LogSoftmax: like,
  Identity: like,
  Cast: like,
  ScatterND: like,
  ScatterElements: like,
  MatMul: product,
  FusedMatMul: product,
  Gemm: product,
  ReduceMean: reduction,
  ReduceSum: reduction,
  Reshape: reshape,
  LayerNormalization: ({ inputs: [x] }, of) => {
    const shape = of.shape(x), moments = [...shape.slice(0, -1), 1];
    return [shape, moments, moments];
  },
  Transpose: ({ inputs: [x], attributes: { perm } }, of) => {
    const shape = of.shape(x);
    return [ints(perm).map((axis) => shape[axis])];
  },
  Slice: (node, of) => {
    const { axis, from, to } = sliceOf(node, of);
    return [of.shape(node.inputs[0]).map((d, i) => i === axis ? to - from : d)];
  },
  Concat: ({ inputs, attributes }, of) => {
    const shapes = inputs.map((name) => of.shape(name)), axis = axisOf(int(attributes.axis, 0), shapes[0]);
    const sum = shapes.reduce((n, shape) => n + Number(shape[axis]), 0);
    return [shapes[0].map((d, i) => i === axis ? sum : d)];
  },
  Expand: ({ inputs: [x, to] }, of) => [broadcast(of.shape(x), of.integers(to))],
  Shape: ({ inputs: [x] }, of) => [[of.shape(x).length]],
  TopK: ({ inputs: [x, k], attributes }, of) => {
    const shape = of.shape(x), axis = axisOf(int(attributes.axis, -1), shape), [best] = of.integers(k);
    const some = shape.map((d, i) => i === axis ? best : d);
    return [some, some];
  },
  NonZero: ({ inputs: [x], outputs: [y] }, of) => [[of.shape(x).length, `rows of ${y}`]],
  Gather: ({ inputs: [x, indices], attributes }, of) => {
    const shape = of.shape(x), axis = axisOf(int(attributes.axis, 0), shape);
    return [[...shape.slice(0, axis), ...of.shape(indices), ...shape.slice(axis + 1)]];
  },
  GatherND: ({ inputs: [x, indices] }, of) => {
    const at = of.shape(indices);
    return [[...at.slice(0, -1), ...of.shape(x).slice(Number(at.at(-1)))]];
  },
  GatherElements: ({ inputs: [, indices] }, of) => [of.shape(indices)],
};
