/**
 * Runs a graph in f64, step by step and as ONNX's specification says: what gradients are checked with, since central
 * differences in f32 show three digits. Slow; test support only.
 */
import type { OnnxGraph, OnnxNode } from "../../linalg/onnx_graph.ts";
import { axisOf, broadcast, int, ints } from "../shapes.ts";

/** Row-major. */
export interface Values {
  readonly data: Float64Array;
  readonly shape: readonly number[];
}

export const values = (data: ArrayLike<number>, ...shape: number[]): Values => ({
  data: Float64Array.from(data),
  shape,
});

const size = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1);

const make = (shape: readonly number[], f: (i: number) => number): Values => ({
  data: Float64Array.from({ length: size(shape) }, (_, i) => f(i)),
  shape,
});

/** Steps of each axis in the data; 0 where `shape` is repeated to `to`. */
function strides(shape: readonly number[], to: readonly number[] = shape): number[] {
  const found = new Array<number>(to.length).fill(0);
  for (let i = shape.length - 1, step = 1; i >= 0; step *= shape[i--]) {
    found[i + to.length - shape.length] = shape[i] === 1 ? 0 : step;
  }
  return found;
}

/** The values at `offset` plus the steps of each axis: what transposes, slices and broadcasts are. */
function view(x: Values, shape: readonly number[], steps: readonly number[], offset = 0): Values {
  const out = new Float64Array(size(shape)), at = new Array<number>(shape.length).fill(0);
  for (let i = 0, from = offset; i < out.length; i++) {
    out[i] = x.data[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += steps[axis];
      if (++at[axis] < shape[axis]) break;
      from -= steps[axis] * shape[axis];
      at[axis] = 0;
    }
  }
  return { data: out, shape };
}

const expand = (x: Values, shape: readonly number[]): Values => view(x, shape, strides(x.shape, shape));

function transpose(x: Values, perm: readonly number[]): Values {
  const steps = strides(x.shape);
  return view(x, perm.map((axis) => x.shape[axis]), perm.map((axis) => steps[axis]));
}

type Step = (inputs: readonly Values[], node: OnnxNode) => Values | readonly Values[];

const each = (f: (x: number) => number): Step => ([x]) => make(x.shape, (i) => f(x.data[i]));

const pairs = (f: (a: number, b: number) => number): Step => ([a, b]) => {
  const shape = broadcast(a.shape, b.shape) as number[], A = expand(a, shape), B = expand(b, shape);
  return make(shape, (i) => f(A.data[i], B.data[i]));
};

/** Applies f to every row along an axis. */
function alongAxis(x: Values, axis: number, f: (row: number[]) => number[]): Values {
  const order = x.shape.map((_, i) => i).filter((i) => i !== axis).concat(axis);
  const rows = transpose(x, order), n = x.shape[axis], out: number[] = [];
  for (let i = 0; i < rows.data.length; i += n) out.push(...f([...rows.data.subarray(i, i + n)]));
  const shape = [...rows.shape.slice(0, -1), out.length / (rows.data.length / n)];
  return transpose({ data: Float64Array.from(out), shape }, order.map((_, i) => order.indexOf(i)));
}

const rowwise = (f: (row: number[]) => number[]): Step => ([x], { attributes }) =>
  alongAxis(x, axisOf(int(attributes.axis, -1), x.shape), f);

const reduce = (mean: boolean): Step => ([x, given], { attributes }) => {
  const listed = given ? [...given.data] : ints(attributes.axes);
  const axes = (listed.length > 0 ? listed : x.shape.map((_, i) => i)).map((axis) => axisOf(axis, x.shape));
  let sum = x;
  for (const axis of axes) {
    sum = alongAxis(sum, axis, (row) => [row.reduce((a, b) => a + b, 0) / (mean ? row.length : 1)]);
  }
  if (int(attributes.keepdims, 1)) return sum;
  return { data: sum.data, shape: sum.shape.filter((_, i) => !axes.includes(i)) };
};

const product: Step = ([a, b, c], { attributes: { transA, transB } }) => {
  const turned = (x: Values, by: boolean) => {
    const axes = x.shape.map((_, i) => i);
    return by ? transpose(x, [...axes.slice(0, -2), axes.length - 1, axes.length - 2]) : x;
  };
  const A = turned(a, int(transA, 0) === 1), B = turned(b, int(transB, 0) === 1);
  const [m, k] = A.shape.slice(-2), n = B.shape.at(-1)!;
  const batch = broadcast(A.shape.slice(0, -2), B.shape.slice(0, -2)) as number[];
  const left = expand(A, [...batch, m, k]).data, right = expand(B, [...batch, k, n]).data;
  const added = c ? expand(c, [...batch, m, n]).data : null;
  return make([...batch, m, n], (at) => {
    const j = at % n, row = Math.floor(at / n), stack = Math.floor(row / m);
    let sum = added ? added[at] : 0;
    for (let i = 0; i < k; i++) sum += left[row * k + i] * right[(stack * k + i) * n + j];
    return sum;
  });
};

function softmax(row: readonly number[]): number[] {
  const most = Math.max(...row), powers = row.map((v) => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((v) => v / sum);
}

/** erf by its series (|x| < 3), beyond by the continued fraction of its complement; both to f64's precision. */
function erf(x: number): number {
  if (x < 0) return -erf(-x);
  if (x < 3) {
    let sum = x;
    for (let n = 1, term = x; Math.abs(term) > 1e-18 * sum; n++) sum += (term *= -x * x / n) / (2 * n + 1);
    return 2 / Math.sqrt(Math.PI) * sum;
  }
  let tail = 0;
  for (let n = 60; n > 0; n--) tail = n / 2 / (x + tail);
  return 1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + tail);
}

const layerNorm: Step = ([x, w, b], { attributes: { epsilon }, outputs }) => {
  const eps = epsilon && "float" in epsilon ? epsilon.float : 1e-5, last = x.shape.length - 1;
  const mean = (row: readonly number[]) => row.reduce((a, v) => a + v, 0) / row.length;
  const inverse = (row: readonly number[]) => {
    const m = mean(row);
    return 1 / Math.sqrt(mean(row.map((v) => (v - m) ** 2)) + eps);
  };
  const y = alongAxis(x, last, (row) => {
    const m = mean(row), by = inverse(row);
    return row.map((v, i) => (v - m) * by * w.data[i] + (b ? b.data[i] : 0));
  });
  const moments = [mean, inverse].map((f) => alongAxis(x, last, (row) => [f(row)]));
  return [y, ...moments].slice(0, outputs.length);
};

const slice: Step = ([x, starts, ends, axes]) => {
  const steps = strides(x.shape), shape = [...x.shape];
  let offset = 0;
  axes.data.forEach((given, i) => {
    const axis = axisOf(given, x.shape), from = Math.min(starts.data[i], x.shape[axis]);
    shape[axis] = Math.min(ends.data[i], x.shape[axis]) - from;
    offset += from * steps[axis];
  });
  return view(x, shape, steps, offset);
};

const concat: Step = (parts, { attributes }) => {
  const axis = axisOf(int(attributes.axis, 0), parts[0].shape);
  const front = parts.map((x) => transpose(x, [axis, ...x.shape.map((_, i) => i).filter((i) => i !== axis)]));
  const data = Float64Array.from(front.flatMap((x) => [...x.data]));
  const shape = [front.reduce((n, x) => n + x.shape[0], 0), ...front[0].shape.slice(1)];
  const order = parts[0].shape.map((_, i) => i === axis ? 0 : i < axis ? i + 1 : i);
  return transpose({ data, shape }, order);
};

/** The best k of the last axis, best first; of equal ones the first. */
const topK: Step = ([x, k]) => {
  const order = (row: readonly number[]) =>
    row.map((_, i) => i).sort((i, j) => row[j] - row[i] || i - j).slice(0, k.data[0]);
  const last = x.shape.length - 1;
  return [alongAxis(x, last, (row) => order(row).map((i) => row[i])), alongAxis(x, last, order)];
};

/** Of a vector. */
const nonZero: Step = ([x]) => {
  const found = [...x.data].flatMap((v, i) => v === 0 ? [] : [i]);
  return values(found, 1, found.length);
};

/** Rows of x. */
const gather: Step = ([x, indices]) => {
  const width = size(x.shape.slice(1)),
    data = [...indices.data].flatMap((at) => [...x.data.subarray(at * width, (at + 1) * width)]);
  return values(data, ...indices.shape, ...x.shape.slice(1));
};

/** The same by indices [n, 1]. */
const gatherND: Step = ([x, indices], node) => gather([x, values(indices.data, indices.shape[0])], node);

/** Rows of x replaced, or with the attribute added to; indices [n, 1]. */
const scatterND: Step = ([x, indices, updates], { attributes: { reduction } }) => {
  const out = x.data.slice(), width = size(x.shape.slice(1));
  indices.data.forEach((row, i) => {
    for (let j = 0; j < width; j++) {
      const old = reduction ? out[row * width + j] : 0;
      out[row * width + j] = old + updates.data[i * width + j];
    }
  });
  return { data: out, shape: x.shape };
};

/** Entries of each row of a matrix replaced. */
const scatterElements: Step = ([x, indices, updates]) => {
  const out = x.data.slice(), some = indices.shape[1], width = x.shape[1];
  indices.data.forEach((at, i) => out[Math.floor(i / some) * width + at] = updates.data[i]);
  return { data: out, shape: x.shape };
};

const STEPS: Readonly<Record<string, Step>> = {
  Add: pairs((a, b) => a + b),
  Sub: pairs((a, b) => a - b),
  Mul: pairs((a, b) => a * b),
  Div: pairs((a, b) => a / b),
  Equal: pairs((a, b) => +(a === b)),
  Identity: each((x) => x),
  Cast: each((x) => x),
  Neg: each((x) => -x),
  Sqrt: each(Math.sqrt),
  Exp: each(Math.exp),
  Erf: each(erf),
  Tanh: each(Math.tanh),
  Sign: each(Math.sign),
  Relu: each((x) => Math.max(0, x)),
  Sigmoid: each((x) => 1 / (1 + Math.exp(-x))),
  Softmax: rowwise(softmax),
  LogSoftmax: rowwise((row) => softmax(row).map(Math.log)),
  Gemm: product,
  MatMul: product,
  FusedMatMul: product,
  ReduceSum: reduce(false),
  ReduceMean: reduce(true),
  LayerNormalization: layerNorm,
  Reshape: ([x, to]) => {
    const given = [...to.data], known = given.reduce((n, d) => d === -1 ? n : n * d, 1);
    return { data: x.data, shape: given.map((d) => d === -1 ? x.data.length / known : d) };
  },
  Transpose: ([x], { attributes: { perm } }) => transpose(x, ints(perm)),
  Slice: slice,
  Concat: concat,
  Expand: ([x, to]) => expand(x, broadcast(x.shape, [...to.data]) as number[]),
  Shape: ([x]) => values(x.shape, x.shape.length),
  TopK: topK,
  NonZero: nonZero,
  Gather: gather,
  GatherND: gatherND,
  ScatterND: scatterND,
  ScatterElements: scatterElements,
};

/** @returns the outputs of the graph by name */
export function interpret(
  graph: OnnxGraph,
  inputs: Readonly<Record<string, Values>>,
): Record<string, Values> {
  const { integers, scalars } = graph.constants, known = new Map(Object.entries(inputs));
  for (const [name, vector] of integers) known.set(name, values(vector, vector.length));
  for (const [name, scalar] of scalars) known.set(name, values([scalar]));
  const read = (name: string): Values => {
    const found = known.get(name);
    if (!found) throw new RangeError(`"${name}" has no values`);
    return found;
  };
  for (const node of graph.steps) {
    const step = STEPS[node.op];
    if (!step) throw new RangeError(`The interpreter does not know "${node.op}"`);
    const found = step(node.inputs.map(read), node), outputs = Array.isArray(found) ? found : [found];
    node.outputs.forEach((name, i) => known.set(name, outputs[i]));
  }
  return Object.fromEntries(graph.outputs.map((name) => [name, read(name)]));
}
