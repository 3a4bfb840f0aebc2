/**
 * One transformer block as an ONNX graph over whole sequences, with its weights as inputs: built once for a model's
 * block shape and run for every block. It also answers the statistics of the inputs that linear layers read.
 */
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import { addExperts, EXPERT_TOKENS } from "./experts_graph.ts";
import { outputExactMoments, outputMoments } from "./moments.ts";
import {
  codedInputs,
  int8Product,
  isCoded,
  type ScaledRows,
  scaleRows,
  smoothing,
  weightScale,
} from "./int8_linear.ts";
import type { Products } from "../../models/recipe.ts";
import {
  blockNorms,
  expertOf,
  type InputName,
  inputOf,
  type LinearName,
  linearShapes,
  type ModelSpec,
  type NormName,
  routerShape,
} from "../../models/spec.ts";

/** What is gathered about the inputs: nothing, the sum of squares of each column, or X'X, whose diagonal they are. */
export type Collect = "nothing" | "squares" | "moments";

/** Columns of each of the inputs, in execution order. */
export function inputWidths(spec: ModelSpec): Readonly<Record<InputName, number>> {
  const widths = Object.entries(linearShapes(spec)).map(([name, shape]) =>
    [inputOf(name as LinearName), shape![1]] as const
  );
  return Object.fromEntries(widths) as Record<InputName, number>;
}

/** The inputs whose layers multiply codes, with their columns. Those of experts stay in f32: their rows are few. */
export const codedWidths = (spec: ModelSpec, products: Products): [InputName, number][] =>
  (Object.entries(inputWidths(spec)) as [InputName, number][])
    .filter(([name]) => (codedInputs(products) as readonly string[]).includes(name));

export type ByInput<T> = Readonly<Record<InputName, T>>;

export function byInput<T>(
  spec: ModelSpec,
  make: (dIn: number, name: InputName) => T,
): Record<InputName, T> {
  const entries = Object.entries(inputWidths(spec))
    .map(([name, dIn]) => [name, make(dIn, name as InputName)] as const);
  return Object.fromEntries(entries) as Record<InputName, T>;
}

/** Names and shapes of a block's weights, as graph inputs and as checkpoint roles under `block.I.`. */
export function blockWeights(
  spec: ModelSpec,
  has: (name: string) => boolean,
): Readonly<Record<string, readonly number[]>> {
  const weights: Record<string, readonly number[]> = {};
  for (const [norm, { length, bias }] of Object.entries(blockNorms(spec))) {
    weights[norm] = [length];
    if (bias && has(`${norm}.bias`)) weights[`${norm}.bias`] = [length];
  }
  const router = routerShape(spec);
  if (router) weights.router = router;
  for (const [name, shape] of Object.entries(linearShapes(spec))) {
    weights[name] = shape;
    if (has(`${name}.bias`)) weights[`${name}.bias`] = [shape[0]];
  }
  return weights;
}

export interface BlockGraphOptions {
  readonly spec: ModelSpec;
  readonly weights: Readonly<Record<string, readonly number[]>>;
  readonly sequences: number;
  readonly length: number;
  readonly collect: Collect;
  /** Of the linear layers; default f32. With int8 their weights are codes `[dIn, dOut]`, with a scale for each output. */
  readonly products?: Products;
  /** What stands before the weights' names. */
  readonly prefix?: string;
  /** Attention from q, k and v, `[tokens, heads x headDim]` each, as the layers leave them; default: the one here. */
  readonly attention?: (q: string, k: string, v: string) => string;
}

/**
 * Inputs: `x` [sequences x length, hidden], the weights, in a decoder `mask` [length, length] and, with rope, `cos` and `sin`
 * [length, 1, dims / 2]. Outputs: `y` like x; `INPUT.first` [sequences, dIn]
 * (position 0) when anything is collected, and `INPUT.squares` [dIn] or the panels of its moments (moments.ts).
 */
export function blockGraph(options: BlockGraphOptions): OnnxGraph {
  const g = new OnnxGraph();
  const { spec, weights, sequences, length, products = "f32" } = options;
  const x = g.input("x", [sequences * length, spec.hiddenSize]);
  for (const [name, shape] of Object.entries(weights)) {
    if (isCoded(name, products)) {
      g.input(name, [...shape].reverse(), "i8");
      g.input(weightScale(name), [shape[0]]);
    } else g.input(name, shape);
  }
  for (const [name, dIn] of codedWidths(spec, products)) g.input(smoothing(name), [dIn]);
  g.output("y", addBlock(g, x, options));
  return g;
}

/** Adds one block that reads x [sequences x length, hidden] to a graph that has its weights; returns its output, like x. */
export function addBlock(g: OnnxGraph, x: string, options: BlockGraphOptions): string {
  const { spec, collect } = options;
  const linear = linearLayers(g, options);
  const tap = (name: InputName, value: string) => {
    if (collect !== "nothing") outputStatistics(g, name, value, options);
    return value;
  };

  const { placement = "before" } = spec.norm;
  const before = (value: string, name: NormName) =>
    placement === "after" ? value : normalise(g, value, name, options);
  const around = (value: string, name: NormName) =>
    placement === "around" ? normalise(g, value, name, options) : value;
  const sum = (value: string, added: string, name: NormName) => {
    const both = g.node("Add", [value, added]);
    return placement === "after" ? normalise(g, both, name, options) : both;
  };

  const attnIn = tap("attn", before(x, "attnNorm"));
  const attend = options.attention ?? ((q, k, v) => attention(g, options, q, k, v));
  const attended = attend(linear("q", attnIn), linear("k", attnIn), linear("v", attnIn));
  const middle = sum(x, around(linear("o", tap("o", attended)), "attnPostNorm"), "attnNorm");
  const { gated, activation, experts } = spec.mlp;
  /** @param whose what stands before the names of its layers and inputs */
  const mlp = (input: string, whose: "" | `experts.${number}.` = ""): string => {
    const rows = tap(`${whose}mlp`, input), up = linear(`${whose}up`, rows);
    const activated = gated
      ? g.node("Mul", [activate(g, activation, linear(`${whose}gate`, rows)), up])
      : activate(g, activation, up);
    return linear(`${whose}down`, tap(`${whose}down`, activated));
  };
  const mlpIn = before(spec.parallel ? x : middle, "mlpNorm");
  if (!experts) return sum(middle, around(mlp(mlpIn), "mlpPostNorm"), "mlpNorm");
  const { prefix = "" } = options;
  const all = addExperts(g, mlpIn, {
    experts,
    router: `${prefix}router`,
    mlp: (expert, rows) => mlp(rows, `experts.${expert}.`),
  });
  if (collect !== "nothing") g.output(EXPERT_TOKENS, all.tokens);
  return sum(middle, around(all.sum, "mlpPostNorm"), "mlpNorm");
}

/** What is gathered about an input `[sequences x length, dIn]`, or `[rows, dIn]` of an expert, whose rows are not in places. */
function outputStatistics(g: OnnxGraph, name: InputName, value: string, options: BlockGraphOptions): void {
  const { spec, sequences, length, collect, products = "f32" } = options, dIn = inputWidths(spec)[name];
  if (expertOf(name) !== null) {
    if (collect === "moments") outputExactMoments(g, name, value, dIn);
    else g.output(`${name}.squares`, sumOfRowSquares(g, value));
    return;
  }
  const rows = g.node("Reshape", [value, g.integers([sequences, length, dIn])]);
  const first = g.node("Slice", [rows, g.integers([0]), g.integers([1]), g.integers([1])]);
  g.output(`${name}.first`, g.node("Reshape", [first, g.integers([sequences, dIn])]));
  if (collect === "moments") outputMoments(g, name, value, { sequences, length, dIn }, products);
  else g.output(`${name}.squares`, sumOfSquares(g, value, sequences * length, dIn));
}

/** Of each column of x [tokens, dIn]: as a product of ones 1.4 ms of [2048, 1536], where ReduceSumSquare takes 11. */
function sumOfSquares(g: OnnxGraph, x: string, tokens: number, dIn: number): string {
  const ones = g.node("Expand", [g.scalar(1), g.integers([1, tokens])]);
  return g.node("Reshape", [g.node("Gemm", [ones, g.node("Mul", [x, x])]), g.integers([dIn])]);
}

/** The same of however many rows. */
const sumOfRowSquares = (g: OnnxGraph, x: string): string =>
  g.node("ReduceSum", [g.node("Mul", [x, x]), g.integers([0])], { keepdims: { int: 0 } });

/** Linear layers by name: with int8 products the rows of an input are scaled once for all that read it. */
function linearLayers(g: OnnxGraph, { weights, products = "f32", prefix = "" }: BlockGraphOptions) {
  const scaled = new Map<string, ScaledRows>();
  return (name: LinearName, input: string): string => {
    const bias = `${name}.bias` in weights ? [`${prefix}${name}.bias`] : [];
    if (!isCoded(name, products)) {
      return g.node("Gemm", [input, prefix + name, ...bias], { transB: { int: 1 } });
    }
    if (!scaled.has(input)) scaled.set(input, scaleRows(g, input, smoothing(inputOf(name))));
    const product = int8Product(g, scaled.get(input)!, prefix + name);
    return bias.length > 0 ? g.node("Add", [product, ...bias]) : product;
  };
}

/** The model's norm with the weights of this name. */
export function normalise(
  g: OnnxGraph,
  x: string,
  name: string,
  options: Pick<BlockGraphOptions, "spec" | "weights" | "prefix">,
): string {
  const { spec, weights, prefix = "" } = options;
  const weight = prefix + name;
  const bias = `${name}.bias` in weights ? `${weight}.bias` : null;
  if (spec.norm.kind === "layernorm") {
    return g.node("LayerNormalization", [x, weight, ...(bias ? [bias] : [])], {
      axis: { int: -1 },
      epsilon: { float: spec.norm.eps },
    });
  }
  return rmsNorm(g, x, weight, spec.norm.eps);
}

/** x / sqrt(mean(x²) + eps) * weight */
export function rmsNorm(g: OnnxGraph, x: string, weight: string, eps: number): string {
  const mean = g.node("ReduceMean", [g.node("Mul", [x, x])], { axes: { ints: [-1] } });
  const root = g.node("Sqrt", [g.node("Add", [mean, g.scalar(eps)])]);
  return g.node("Mul", [g.node("Div", [x, root]), weight]);
}

/** Queries that share one matrix product with the keys up to the last of them. */
export const QUERY_BLOCK = 128;

/** q [tokens, heads x headDim], k and v [tokens, kvHeads x headDim] -> [tokens, heads x headDim] */
function attention(
  g: OnnxGraph,
  { spec, sequences: n, length: t, prefix = "" }: BlockGraphOptions,
  q: string,
  k: string,
  v: string,
): string {
  const { heads, kvHeads, headDim, scale, causal, headNorms, softCap } = spec.attention;
  if (causal && !g.has("mask")) g.input("mask", [t, t]);
  const groups = heads / kvHeads;
  const reshape = (x: string, ...shape: number[]) => g.node("Reshape", [x, g.integers(shape)]);
  const permute = (x: string, ...perm: number[]) => g.node("Transpose", [x], { perm: { ints: perm } });
  const turned = (x: string, count: number, norm: NormName) => {
    const split = reshape(x, n, t, count, headDim);
    return rotate(g, spec, headNorms ? rmsNorm(g, split, prefix + norm, spec.norm.eps) : split);
  };
  const scaled = g.node("Mul", [turned(q, heads, "qNorm"), g.scalar(scale)]);
  const queries = permute(reshape(scaled, n, t, kvHeads, groups, headDim), 0, 2, 3, 1, 4);
  const keys = permute(turned(k, kvHeads, "kNorm"), 0, 2, 3, 1);
  const values = permute(reshape(v, n, t, kvHeads, headDim), 0, 2, 1, 3);
  const slice = (x: string, axis: number, from: number, to: number) =>
    g.node("Slice", [x, g.integers([from]), g.integers([to]), g.integers([axis])]);
  const step = causal ? QUERY_BLOCK : t;
  // Keys behind a block of queries are masked anyway: leaving them out saves 3/8 of the work at 512 tokens.
  const parts: string[] = [];
  for (let from = 0; from < t; from += step) {
    const to = Math.min(t, from + step), rows = to - from, seen = causal ? to : t;
    const block = reshape(slice(queries, 3, from, to), n, kvHeads, groups * rows, headDim);
    const products = g.node("MatMul", [block, slice(keys, 3, 0, seen)]);
    const scores = capped(g, reshape(products, n, kvHeads, groups, rows, seen), softCap);
    const masked = causal ? g.node("Add", [scores, slice(slice("mask", 0, from, to), 1, 0, to)]) : scores;
    const weights = g.node("Softmax", [masked], { axis: { int: -1 } });
    const mixed = reshape(weights, n, kvHeads, groups * rows, seen);
    const out = g.node("MatMul", [mixed, slice(values, 2, 0, seen)]);
    parts.push(reshape(out, n, kvHeads, groups, rows, headDim));
  }
  const all = parts.length > 1 ? g.node("Concat", parts, { axis: { int: 3 } }) : parts[0];
  return reshape(permute(all, 0, 3, 1, 2, 4), n * t, heads * headDim);
}

/** cap tanh(x / cap); without a cap x. */
export function capped(g: OnnxGraph, x: string, cap: number | undefined): string {
  return cap ? g.node("Mul", [g.node("Tanh", [g.node("Mul", [x, g.scalar(1 / cap)])]), g.scalar(cap)]) : x;
}

/** Rotary embedding of [n, t, heads, headDim]: pairs (i, i + dims / 2), the dimensions behind `dims` unchanged. */
function rotate(g: OnnxGraph, spec: ModelSpec, x: string): string {
  const { rope, headDim } = spec.attention;
  if (!rope) return x;
  if (!g.has("cos")) {
    g.input("cos", ["length", 1, rope.dims / 2]);
    g.input("sin", ["length", 1, rope.dims / 2]);
  }
  return turn(g, x, { dims: rope.dims, headDim, cos: "cos", sin: "sin" });
}

/** @param turns what the pairs of each position turn by, [t, 1, dims / 2] */
export function turn(
  g: OnnxGraph,
  x: string,
  { dims, headDim, cos, sin }: {
    readonly dims: number;
    readonly headDim: number;
    readonly cos: string;
    readonly sin: string;
  },
): string {
  const part = (from: number, to: number) =>
    g.node("Slice", [x, g.integers([from]), g.integers([to]), g.integers([3])]);
  const a = part(0, dims / 2), b = part(dims / 2, dims);
  const times = (value: string, by: string) => g.node("Mul", [value, by]);
  const parts = [
    g.node("Sub", [times(a, cos), times(b, sin)]),
    g.node("Add", [times(b, cos), times(a, sin)]),
  ];
  if (dims < headDim) parts.push(part(dims, headDim));
  return g.node("Concat", parts, { axis: { int: 3 } });
}

function activate(g: OnnxGraph, kind: ModelSpec["mlp"]["activation"], x: string): string {
  switch (kind) {
    case "relu":
      return g.node("Relu", [x]);
    case "quick_gelu":
      return g.node("Mul", [x, g.node("Sigmoid", [g.node("Mul", [x, g.scalar(1.702)])])]);
    case "silu":
      return g.node("Mul", [x, g.node("Sigmoid", [x])]);
    case "gelu": { // x / 2 (1 + erf(x / √2))
      const erf = g.node("Erf", [g.node("Mul", [x, g.scalar(Math.SQRT1_2)])]);
      return g.node("Mul", [g.node("Mul", [x, g.scalar(0.5)]), g.node("Add", [erf, g.scalar(1)])]);
    }
    case "gelu_tanh": { // x sigmoid(2 √(2/π) (x + 0.044715 x³)), the same function without the tanh
      const cube = g.node("Mul", [g.node("Mul", [x, x]), x]);
      const inner = g.node("Add", [x, g.node("Mul", [cube, g.scalar(0.044715)])]);
      const gate = g.node("Sigmoid", [g.node("Mul", [inner, g.scalar(2 * Math.sqrt(2 / Math.PI))])]);
      return g.node("Mul", [x, gate]);
    }
  }
}
