/** The rule of every operator against central differences in f64, over shapes that fast-check chooses. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { type Dimension, OnnxGraph } from "../linalg/onnx_graph.ts";
import { seededRandom } from "../random.ts";
import { derive } from "./derive.ts";
import { RULES } from "./rules.ts";
import { checkGradient } from "./testing/check_gradient.ts";
import { interpret, type Values, values } from "./testing/interpreter.ts";

/** Draws a size from 1 to `most`. */
type Draw = (most?: number) => number;

/** A graph of one operator (and what it needs) over random inputs. */
interface Case {
  /** Shapes of the inputs that have gradients. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly build: (g: OnnxGraph) => string;
  /** Inputs above 1/2, for roots and divisions. */
  readonly positive?: readonly string[];
}

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

const unary = (op: string, positive = false) => (draw: Draw): Case => ({
  shapes: { x: [draw(), draw()] },
  build: (g) => g.node(op, ["x"]),
  positive: positive ? ["x"] : [],
});

/** Either side may be repeated along any axis, or have fewer axes. */
const pair = (op: string) => (draw: Draw): Case => {
  const whole = [draw(), draw(), draw()], some = () => whole.map((d) => draw(3) === 1 ? 1 : d);
  return {
    shapes: { a: some(), b: some().slice(draw(3) - 1) },
    build: (g) => g.node(op, ["a", "b"]),
    positive: ["b"],
  };
};

const rowwise = (op: string) => (draw: Draw): Case => ({
  shapes: { x: [draw(), draw() + 1] },
  build: (g) => g.node(op, ["x"], { axis: { int: -1 } }),
});

const reduction = (op: string) => (draw: Draw): Case => {
  const axis = draw(3) - 1, keepdims = { int: draw(2) - 1 };
  return {
    shapes: { x: [draw(), draw(), draw()] },
    build: (g) =>
      op === "ReduceMean"
        ? g.node(op, ["x"], { axes: { ints: [axis] }, keepdims })
        : g.node(op, ["x", g.integers([axis])], { keepdims }),
  };
};

const CASES: Readonly<Record<string, (draw: Draw) => Case>> = {
  Add: pair("Add"),
  Sub: pair("Sub"),
  Mul: pair("Mul"),
  Div: pair("Div"),
  Identity: unary("Identity"),
  Neg: unary("Neg"),
  Sqrt: unary("Sqrt", true),
  Exp: unary("Exp"),
  Sigmoid: unary("Sigmoid"),
  Tanh: unary("Tanh"),
  Relu: unary("Relu"),
  Erf: unary("Erf"),
  ReduceSum: reduction("ReduceSum"),
  ReduceMean: reduction("ReduceMean"),
  Softmax: rowwise("Softmax"),
  LayerNormalization: (draw) => {
    const width = draw() + 1, bias = draw(2) === 1 ? ["b"] : [];
    return {
      shapes: { x: [draw(), width], w: [width], ...bias.length > 0 ? { b: [width] } : {} },
      build: (g) => g.node("LayerNormalization", ["x", "w", ...bias], { epsilon: { float: 1e-3 } }),
    };
  },
  Gemm: (draw) => {
    const [m, k, n] = [draw(), draw(), draw()], [transA, transB] = [draw(2) - 1, draw(2) - 1];
    return {
      shapes: { a: transA ? [k, m] : [m, k], b: transB ? [n, k] : [k, n], c: draw(2) === 1 ? [n] : [m, n] },
      build: (g) => g.node("Gemm", ["a", "b", "c"], { transA: { int: transA }, transB: { int: transB } }),
    };
  },
  MatMul: (draw) => {
    const [stack, m, k, n] = [draw(), draw(), draw(), draw()];
    return {
      shapes: { a: draw(3) === 1 ? [1, m, k] : [stack, m, k], b: draw(2) === 1 ? [stack, k, n] : [k, n] },
      build: (g) => g.node("MatMul", ["a", "b"]),
    };
  },
  Reshape: (draw) => {
    const [a, b, c] = [draw(), draw(), draw()];
    return { shapes: { x: [a, b, c] }, build: (g) => g.node("Reshape", ["x", g.integers([-1, c])]) };
  },
  Transpose: (draw) => {
    const perm = { ints: [[2, 0, 1], [1, 0, 2]][draw(2) - 1] };
    return { shapes: { x: [draw(), draw(), draw()] }, build: (g) => g.node("Transpose", ["x"], { perm }) };
  },
  Slice: (draw) => { // overlapping ones, with and without a gap
    const length = draw() + 3, cut = draw(2), axis = draw(2) - 1;
    const shape = [draw(), draw()].toSpliced(axis, 1, length);
    const part = (g: OnnxGraph, from: number, to: number) =>
      g.node("Slice", ["x", g.integers([from]), g.integers([to]), g.integers([axis])]);
    return {
      shapes: { x: shape },
      build: (g) =>
        g.node("Concat", [part(g, 0, cut + 1), part(g, cut, length - 1)], { axis: { int: axis } }),
    };
  },
  Concat: (draw) => {
    const rows = draw();
    return {
      shapes: { a: [rows, draw()], b: [rows, draw()] },
      build: (g) => g.node("Concat", ["a", "b", "a"], { axis: { int: -1 } }),
    };
  },
  Expand: (draw) => {
    const [rows, columns] = [draw(), draw()];
    return { shapes: { x: [columns] }, build: (g) => g.node("Expand", ["x", g.integers([rows, columns])]) };
  },
  TopK: (draw) => {
    const k = draw(2);
    return {
      shapes: { x: [draw(), draw() + 2] },
      build: (g) => g.nodes("TopK", ["x", g.integers([k])], {}, 2)[0],
    };
  },
  Gather: (draw) => { // a row twice, others never
    const rows = draw() + 1;
    return {
      shapes: { x: [rows, draw()] },
      build: (g) => g.node("Gather", ["x", g.integers([rows - 1, 0, rows - 1])], { axis: { int: 0 } }),
    };
  },
  ScatterND: (draw) => {
    const rows = draw() + 2, width = draw();
    return {
      shapes: { x: [rows, width], updates: [2, width] },
      build: (g) => {
        const places = g.node("Reshape", [g.integers([rows - 1, 0]), g.integers([-1, 1])]);
        return g.node("ScatterND", ["x", places, "updates"]);
      },
    };
  },
};

function build({ shapes, build }: Case): OnnxGraph {
  const g = new OnnxGraph();
  for (const [name, shape] of Object.entries(shapes)) g.input(name, shape);
  g.output("y", build(g));
  return g;
}

function check(one: Case, seed: number): void {
  const random = seededRandom(seed), names = Object.keys(one.shapes);
  const draw = (name: string, shape: readonly number[]) =>
    values(
      Array.from({ length: size(shape) }, () => {
        const v = random.normal();
        return one.positive?.includes(name) ? 0.5 + Math.abs(v) : v;
      }),
      ...shape,
    );
  const inputs: Record<string, Values> = {};
  for (const [name, shape] of Object.entries(one.shapes)) inputs[name] = draw(name, shape);
  const forward = build(one), weights = draw("dy", interpret(forward, inputs).y.shape);
  const g = build(one), seeds = new Map([["y", g.input("dy", weights.shape)]]);
  for (const [name, value] of derive(g, { seeds, wanted: names })) g.output(`d.${name}`, value);
  const found = interpret(g.prune(), { ...inputs, dy: weights });
  const gradients = Object.fromEntries(names.map((name) => [name, found[`d.${name}`]]));
  checkGradient({ forward, output: "y", weights, inputs, gradients, seed });
}

Deno.test("every rule is checked", () => {
  assert.deepEqual(Object.keys(CASES).sort(), Object.keys(RULES).sort());
});

for (const [op, make] of Object.entries(CASES)) {
  Deno.test(`the gradient of ${op}`, () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 30 }), (seed) => {
        const random = seededRandom(seed);
        check(make((most = 4) => 1 + random.below(most)), seed);
      }),
      { numRuns: 20 },
    );
  });
}

Deno.test("gradients over rows whose number is free", () => {
  const build = (rows: Dimension): OnnxGraph => {
    const g = new OnnxGraph();
    g.input("x", [rows, 3]);
    g.input("w", [2, 3]);
    g.input("bias", [2]);
    g.input("scale", [2]);
    const product = g.node("Gemm", ["x", "w", "bias"], { transB: { int: 1 } });
    g.output("y", g.node("Mul", [g.node("Tanh", [product]), "scale"]));
    return g;
  };
  const random = seededRandom(4), names = ["x", "w", "bias", "scale"];
  const make = (...shape: number[]) =>
    values(Array.from({ length: size(shape) }, () => random.normal()), ...shape);
  const inputs = { x: make(5, 3), w: make(2, 3), bias: make(2), scale: make(2) }, weights = make(5, 2);
  const g = build("rows"), seeds = new Map([["y", g.input("dy", ["rows", 2])]]);
  for (const [name, value] of derive(g, { seeds, wanted: names })) g.output(name, value);
  const gradients = interpret(g, { ...inputs, dy: weights });
  checkGradient({
    forward: build(5),
    output: "y",
    weights,
    inputs,
    gradients: Object.fromEntries(names.map((name) => [name, gradients[name]])),
  });
});

Deno.test("derive() names what it cannot do", () => {
  const g = new OnnxGraph();
  g.input("x", [2]);
  g.input("other", [2]);
  g.output("y", g.node("Tanh", ["x"]));
  const seeds = new Map([["y", g.input("dy", [2])]]);
  assert.throws(() => derive(g, { seeds, wanted: ["other"] }), /No output depends on "other"/);
  g.output("z", g.node("LogSoftmax", ["x"]));
  const both = new Map([["z", "dy"]]);
  assert.throws(() => derive(g, { seeds: both, wanted: ["x"] }), /"LogSoftmax" has no gradient/);
  g.output("w", g.node("Unknown", ["x"]));
  assert.throws(() => derive(g, { seeds, wanted: ["x"] }), /No shape is known for ONNX operator "Unknown"/);
});
