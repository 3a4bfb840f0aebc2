/**
 * X'X of a block's inputs: the outputs of its graph, and their sums. In f32, or in products of bytes, which take a
 * third of the time ([2048, 1536]: 26 against 95 ms, one thread with AVX-512 VNNI).
 */
import type { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { Tensor } from "../linalg/runtime.ts";
import { type InputKind, inputKind, type InputName } from "../../models/spec.ts";
import type { Products } from "../../models/recipe.ts";

/** Rows from..to-1 of X'X, from the diagonal on: it is symmetric, so the rest costs nothing. */
export interface MomentPanel {
  readonly from: number;
  readonly to: number;
  /** Name of the output `[to - from, dIn - from]`. */
  readonly output: string;
}
const PANEL_COLUMNS = 192;

export function momentPanels(name: InputName, dIn: number): MomentPanel[] {
  return Array.from({ length: Math.ceil(dIn / PANEL_COLUMNS) }, (_, i) => {
    const from = i * PANEL_COLUMNS;
    return { from, to: Math.min(dIn, from + PANEL_COLUMNS), output: `${name}.moments.${from}` };
  });
}

/** Adds the panels of x'x, x `[tokens, dIn]`, to the graph's outputs. */
export function outputMoments(
  g: OnnxGraph,
  name: InputName,
  x: string,
  shape: { readonly sequences: number; readonly length: number; readonly dIn: number },
  products: Products,
): void {
  if (products === "int8") outputCodeMoments(g, name, x, shape);
  else outputExactMoments(g, name, x, shape.dIn);
}

/**
 * From rows of x', transposed once, panels take a fifth less than from columns of x, each cut out anew ([2048, 1536]:
 * 68 against 85 ms).
 */
export function outputExactMoments(g: OnnxGraph, name: InputName, x: string, dIn: number): void {
  const transposed = g.node("Transpose", [x], { perm: { ints: [1, 0] } });
  for (const { from, to, output } of momentPanels(name, dIn)) {
    const rows = [slice(g, transposed, 0, from, to, dIn), slice(g, transposed, 0, from, dIn, dIn)];
    g.output(output, g.node("Gemm", rows, { transB: { int: 1 } }));
  }
}

/**
 * Codes are i8, and on the left u8: ONNX Runtime is fast at u8 times i8 only. What comes out is X'X of rounded inputs, so it
 * has no negative eigenvalue, however few the tokens. Rounding adds 0.5 % to the diagonal; taking that off again would
 * make X'X indefinite where there are fewer tokens than columns.
 */
const ZERO_POINT = 128;
const TYPE_U8 = 2, TYPE_I8 = 3, TYPE_F32 = 1;

/** Name of the input `[length, dIn]` that takes inputs to codes: 0 in row 0, since position 0 is summed exactly. */
export const codeFactors = (name: InputName): string => `${name}.codeFactors`;

function outputCodeMoments(
  g: OnnxGraph,
  name: InputName,
  x: string,
  { sequences, length, dIn }: { readonly sequences: number; readonly length: number; readonly dIn: number },
): void {
  const factors = g.input(codeFactors(name), [length, dIn]);
  const reshape = (v: string, ...to: number[]) => g.node("Reshape", [v, g.integers(to)]);
  const scaled = reshape(
    g.node("Mul", [reshape(x, sequences, length, dIn), factors]),
    sequences * length,
    dIn,
  );
  const one = g.scalar(1);
  const zero = (value: number, type: number) => g.node("Cast", [g.scalar(value)], { to: { int: type } });
  const middle = zero(ZERO_POINT, TYPE_U8);
  const right = g.node("QuantizeLinear", [scaled, one, zero(0, TYPE_I8)]);
  const left = g.node("Transpose", [g.node("QuantizeLinear", [scaled, one, middle])], {
    perm: { ints: [1, 0] },
  });
  for (const { from, to, output } of momentPanels(name, dIn)) {
    const product = g.node("MatMulInteger", [
      slice(g, left, 0, from, to, dIn),
      slice(g, right, 1, from, dIn, dIn),
      middle,
    ]);
    g.output(output, g.node("Cast", [product], { to: { int: TYPE_F32 } }));
  }
}

function slice(g: OnnxGraph, x: string, axis: number, from: number, to: number, size: number): string {
  if (from === 0 && to === size) return x;
  return g.node("Slice", [x, g.integers([from]), g.integers([to]), g.integers([axis])]);
}

/**
 * Adds panels to the upper triangle (and the squares on it) of H `[dIn, dIn]`.
 * @param scales `[dIn]` of the codes, when the panels are of codes
 */
export function addMoments(
  name: InputName,
  H: Float32Array,
  outputs: Readonly<Record<string, Tensor>>,
  scales: Float64Array | null,
): void {
  const n = Math.sqrt(H.length);
  for (const { from, to, output } of momentPanels(name, n)) {
    const panel = outputs[output].data, width = n - from;
    for (let i = from; i < to; i++) {
      const row = H.subarray(i * n + from, (i + 1) * n), values = panel.subarray((i - from) * width);
      if (scales === null) { for (let j = 0; j < width; j++) row[j] += values[j]; }
      else for (let j = 0; j < width; j++) row[j] += values[j] * scales[i] * scales[from + j];
    }
  }
}

/** Largest code. */
const MAX_CODE = 127;
/**
 * How many times a column's size the largest code stands for; what is larger counts as that. Rounding adds (CLIP / 127)² / 12
 * to each squared column, 0.2 % to 0.5 %; clipping takes from it. SmolLM2's X'X has its least error at 20 for inputs that a
 * norm makes and at 32 for the others, whose tails are heavier (`down`: 0.061, 0.046, 0.054, 0.068 of its size at 20, 32,
 * 48, 64).
 */
const CLIP: Readonly<Record<InputKind, number>> = { attn: 20, o: 24, mlp: 20, down: 32 };
/** Least size of a column, of the mean one: a column that is dead in the first sequence may live in the next. */
const MIN_SIZE = 1 / 200;

/** @param sizes `[dIn]` root mean squares of the columns, about */
export function codeScales(name: InputName, sizes: Float64Array): Float64Array {
  const mean = Math.sqrt(sizes.reduce((sum, d) => sum + d * d, 0) / sizes.length);
  return sizes.map((d) => (Math.max(d, MIN_SIZE * mean) || 1) * CLIP[inputKind(name)] / MAX_CODE);
}

/** Values of the input {@linkcode codeFactors}, `[length, dIn]`. */
export function codeFactorRows(scales: Float64Array, length: number): Float32Array<ArrayBuffer> {
  const n = scales.length, rows = new Float32Array(length * n);
  for (let j = 0; j < n && length > 1; j++) rows[n + j] = 1 / scales[j];
  for (let t = 2; t < length; t++) rows.copyWithin(t * n, n, 2 * n);
  return rows;
}

/** Adds the upper triangle of x'x to H `[dIn, dIn]`, for rows x that codes cannot hold. */
export function addRows(H: Float32Array, x: Float32Array): void {
  const n = Math.sqrt(H.length);
  for (let at = 0; at < x.length; at += n) {
    for (let i = 0; i < n; i++) {
      const row = H.subarray(i * n, (i + 1) * n), factor = x[at + i];
      for (let j = i; j < n; j++) row[j] += factor * x[at + j];
    }
  }
}
