/** A graph that knows the shape of every value, of the steps it has and of those that are added through it. */
import type { Attribute, OnnxGraph, OnnxNode } from "../linalg/onnx_graph.ts";
import { sameShape, type Shape, SHAPES, type ShapeSource } from "./shapes.ts";

type Attributes = Readonly<Record<string, Attribute>>;

/** ONNX Runtime's own operators. */
const MICROSOFT = "com.microsoft";

export class ShapedGraph implements ShapeSource {
  readonly #shapes = new Map<string, Shape>();
  /** What Shape steps answer. */
  readonly #measured = new Map<string, Shape>();
  readonly #ones = new Map<string, string>();

  /** @param sizes of dimensions that the graph's inputs name */
  constructor(readonly graph: OnnxGraph, sizes: Readonly<Record<string, number>> = {}) {
    for (const [name, { shape }] of graph.inputs) {
      this.#shapes.set(name, shape.map((d) => typeof d === "string" ? sizes[d] ?? d : d));
    }
    for (const node of graph.steps) this.#learn(node);
  }

  #learn(node: OnnxNode): void {
    const rule = SHAPES[node.op];
    if (!rule) throw new RangeError(`No shape is known for ONNX operator "${node.op}"`);
    const shapes = rule(node, this);
    node.outputs.forEach((name, i) => this.#shapes.set(name, shapes[i]));
    if (node.op === "Shape") this.#measured.set(node.outputs[0], this.shape(node.inputs[0]));
  }

  shape(value: string): Shape {
    const { integers, scalars } = this.graph.constants;
    const shape = this.#shapes.get(value) ?? (scalars.has(value) ? [] : null);
    if (shape) return shape;
    const vector = integers.get(value);
    if (!vector) throw new RangeError(`The shape of "${value}" is not known`);
    return [vector.length];
  }

  integers(value: string): Shape {
    const known = this.graph.constants.integers.get(value) ?? this.#measured.get(value);
    if (!known) throw new RangeError(`"${value}" is no constant`);
    return known;
  }

  node(op: string, inputs: readonly string[], attributes: Attributes = {}, domain = ""): string {
    const output = this.graph.node(op, inputs, attributes, undefined, domain);
    this.#learn({ op, inputs, attributes, outputs: [output], domain });
    return output;
  }

  nodes(op: string, inputs: readonly string[], attributes: Attributes, count: number): string[] {
    const outputs = this.graph.nodes(op, inputs, attributes, count);
    this.#learn({ op, inputs, attributes, outputs, domain: "" });
    return outputs;
  }

  add = (a: string, b: string): string => this.node("Add", [a, b]);
  sub = (a: string, b: string): string => this.node("Sub", [a, b]);
  mul = (a: string, b: string): string => this.node("Mul", [a, b]);
  div = (a: string, b: string): string => this.node("Div", [a, b]);
  scalar = (value: number): string => this.graph.scalar(value);
  vector = (values: readonly number[]): string => this.graph.integers(values);

  /** `c + a b` for matrices; without c: the product. */
  gemm(a: string, b: string, transA: boolean, transB: boolean, c?: string): string {
    return this.node("Gemm", c ? [a, b, c] : [a, b], { transA: { int: +transA }, transB: { int: +transB } });
  }

  /** Products of stacks of matrices, either side turned on the way: 133 ms of a block's gradient, 141 with Transposes. */
  matmul(a: string, b: string, { transA = false, transB = false } = {}): string {
    if (!transA && !transB) return this.node("MatMul", [a, b]);
    return this.node(
      "FusedMatMul",
      [a, b],
      { transA: { int: +transA }, transB: { int: +transB } },
      MICROSOFT,
    );
  }

  /** As an input of Reshape or Expand: a constant, or the shape of `example` where a size is free. */
  #sizes(shape: Shape, example: string | null): string {
    if (shape.every((d) => typeof d === "number")) return this.vector(shape as number[]);
    if (!example) throw new RangeError(`[${shape}] has no example to take its free sizes from`);
    const measured = this.graph.node("Shape", [example]);
    this.#learn({ op: "Shape", inputs: [example], attributes: {}, outputs: [measured], domain: "" });
    return measured;
  }

  /** x in a shape with at most one free dimension. */
  reshape(x: string, shape: Shape): string {
    if (sameShape(this.shape(x), shape)) return x;
    return this.node("Reshape", [x, this.vector(shape.map((d) => typeof d === "number" ? d : -1))]);
  }

  /** x repeated where `like` is larger. */
  expandLike(x: string, like: string): string {
    const shape = this.shape(like);
    if (sameShape(this.shape(x), shape)) return x;
    return this.node("Expand", [x, this.#sizes(shape, like)]);
  }

  slice(x: string, axis: number, from: number, to: number): string {
    if (from === 0 && to === this.shape(x)[axis]) return x;
    return this.node("Slice", [x, this.vector([from]), this.vector([to]), this.vector([axis])]);
  }

  concat(parts: readonly string[], axis: number): string {
    return parts.length === 1 ? parts[0] : this.node("Concat", parts, { axis: { int: axis } });
  }

  zeros(shape: readonly number[]): string {
    return this.node("Expand", [this.scalar(0), this.vector(shape)]);
  }

  /** Zeros in the shape of a value, whose sizes may be free. */
  zerosLike(example: string): string {
    return this.node("Expand", [this.scalar(0), this.#sizes(this.shape(example), example)]);
  }

  /** A constant of ones: ONNX Runtime folds it before the first run. */
  ones(...shape: number[]): string {
    const key = shape.join();
    const made = this.#ones.get(key) ?? this.node("Expand", [this.scalar(1), this.vector(shape)]);
    this.#ones.set(key, made);
    return made;
  }

  /** Sum over axes, which stay with size 1. */
  sum(x: string, axes: readonly number[]): string {
    return this.node("ReduceSum", [x, this.vector(axes)]);
  }

  /** Sums of the columns of x `[..., d]`, `[d]`: a product with ones takes an eighth of ReduceSum's time (block_graph.ts). */
  columnSums(x: string): string {
    const shape = this.shape(x), width = shape.at(-1)!;
    const rows = shape.slice(0, -1).reduce<number>((n, d) => n * Number(d), 1);
    if (Number.isNaN(rows)) return this.reshape(this.sum(x, shape.slice(1).map((_, i) => i)), [width]);
    return this.reshape(this.gemm(this.ones(1, rows), this.reshape(x, [rows, width]), false, false), [width]);
  }

  /**
   * Takes back a broadcast: the sum of `x`, as if it had the shape `full`, over what was repeated from `target`. Where x
   * itself is still to be repeated and target is not summed, it stays so.
   */
  unbroadcast(x: string, target: Shape, full: string): string {
    const whole = this.shape(full), rank = whole.length, lead = rank - target.length;
    const summed = whole.flatMap((d, i) => d !== 1 && (i < lead || target[i - lead] === 1) ? [i] : []);
    x = this.reshape(
      x,
      Array.from({ length: rank }, (_, i) => this.shape(x)[i - rank + this.shape(x).length] ?? 1),
    );
    if (summed.some((i) => this.shape(x)[i] === 1)) x = this.expandLike(x, full);
    const has = this.shape(x), left = target.map((_, j) => summed.includes(j + lead) ? 1 : has[j + lead]);
    if (summed.length === 0) return this.reshape(x, left);
    const columns = summed.length === rank - 1 && !summed.includes(rank - 1);
    return this.reshape(columns ? this.columnSums(x) : this.sum(x, summed), left);
  }
}
