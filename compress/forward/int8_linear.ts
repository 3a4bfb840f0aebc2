/**
 * Linear layers in 8-bit products, for calibration: statistics do not need the last bits, and ONNX Runtime multiplies
 * u8 by i8 three times as fast as f32 where the processor has dot products of bytes (AVX-512 VNNI, one thread,
 * [2048, 576] x [576, 1536]: 15.0 against 44.4 ms, scaling of rows included).
 */
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import type { Products } from "../../models/recipe.ts";
import { type InputKind, type InputName, inputOf, type LinearName } from "../../models/spec.ts";

/**
 * Inputs whose layers multiply codes. Not those of `down`: the first token's are a thousand times the others' in some
 * blocks, and its errors reach every later token through attention (SmolLM2, hidden states behind block 14: off by 0.5 %
 * without them, by 5 % with them). Nor those of q, k and v, a fifth of the other weights, whose errors move attention
 * (X'X of `o`: off by 1.7 % without them, by 5 % with them).
 */
const CODED_INPUTS: readonly InputKind[] = ["o", "mlp"];
/** Inputs of a block whose layers multiply codes. */
export const codedInputs = (products: Products): readonly InputKind[] =>
  products === "int8" ? CODED_INPUTS : [];
/** Whether a weight is in codes: a layer's name, or that of another weight of a block. */
export const isCoded = (name: string, products: Products): name is LinearName =>
  (codedInputs(products) as readonly string[]).includes(inputOf(name as LinearName));

/** Outputs whose codes are written together: as many rows of W stay in the first-level cache. */
const TILE = 16;
/** Largest code of a weight: symmetric, so that there is no zero point. */
const MAX_CODE = 127;

/** Name of the input `[dOut]` that has the scales of a layer's outputs. */
export const weightScale = (name: string): string => `${name}.codeScale`;
/** Name of the input `[dIn]` that an input's columns are multiplied by. */
export const smoothing = (name: InputName): string => `${name}.smoothing`;

/**
 * Factors that bring the columns of an input halfway to one size, so that the large ones do not take the codes of the
 * others; weights are divided by them (SmoothQuant, Xiao et al. 2022, with exponent 1/2).
 * @param sizes `[dIn]` of the columns, about
 */
export function smoothingFactors(sizes: Float64Array): Float32Array<ArrayBuffer> {
  const mean = Math.sqrt(sizes.reduce((sum, d) => sum + d * d, 0) / sizes.length) || 1;
  return Float32Array.from(sizes, (d) => 1 / Math.sqrt(Math.max(d / mean, MIN_SIZE)));
}
/** Of a column, of the mean one: dead ones stay near the others. */
const MIN_SIZE = 1 / 200;

/**
 * W diag(1 / factors) to nearest codes, one scale for every output.
 * @param W `[dOut, dIn]`
 * @param factors `[dIn]` of {@linkcode smoothingFactors}
 * @returns codes `[dIn, dOut]` (as the products read them) and scales `[dOut]`: codes[i][o] scales[o] is about
 * W[o][i] / factors[i]
 */
export function int8Weights(
  W: Float32Array,
  factors: Float32Array,
): { readonly codes: Int8Array<ArrayBuffer>; readonly scales: Float32Array<ArrayBuffer> } {
  const dIn = factors.length, dOut = W.length / dIn, inverse = factors.map((f) => 1 / f);
  const codes = new Int8Array(dIn * dOut), scales = new Float32Array(dOut), perScale = new Float64Array(dOut);
  for (let o = 0; o < dOut; o++) {
    let most = 0;
    for (let i = 0; i < dIn; i++) most = Math.max(most, Math.abs(W[o * dIn + i] * inverse[i]));
    scales[o] = most / MAX_CODE;
    perScale[o] = most > 0 ? MAX_CODE / most : 0;
  }
  for (let o0 = 0; o0 < dOut; o0 += TILE) {
    const end = Math.min(dOut, o0 + TILE);
    for (let i = 0; i < dIn; i++) {
      for (let o = o0; o < end; o++) {
        codes[i * dOut + o] = Math.round(W[o * dIn + i] * inverse[i] * perScale[o]);
      }
    }
  }
  return { codes, scales };
}

/** Inputs in rows whose largest entry is 1 (one scale then serves them all), and what they were divided by. */
export interface ScaledRows {
  readonly rows: string;
  readonly scale: string;
}

/** @param factors name of an input `[dIn]` */
export function scaleRows(g: OnnxGraph, x: string, factors: string): ScaledRows {
  const smooth = g.node("Mul", [x, factors]);
  const most = g.node("ReduceMax", [g.node("Abs", [smooth])], { axes: { ints: [1] } });
  const scale = g.node("Max", [most, g.scalar(1e-30)]); // rows of zeros
  return { rows: g.node("Div", [smooth, scale]), scale };
}

/** x W' `[tokens, dOut]` from the codes that the graph's inputs `name` and {@linkcode weightScale} have. */
export function int8Product(g: OnnxGraph, { rows, scale }: ScaledRows, name: string): string {
  const inputs = [rows, name, weightScale(name)];
  return g.node("Mul", [g.node("DynamicQuantizeMatMul", inputs, {}, undefined, "com.microsoft"), scale]);
}

/**
 * Whether products of bytes are exact here. Without VNNI ONNX Runtime adds two of them in 16 bits, which saturate at
 * codes this large; calibration then stays with f32.
 */
export async function hasExactInt8(linalg: LinalgRuntime): Promise<boolean> {
  const n = 64, rows = 8;
  const x: Tensor = { data: new Float32Array(rows * n).fill(1), shape: [rows, n] };
  const y: Tensor = { data: new Float32Array(rows * n), shape: [rows, n] };
  const inputs = {
    x,
    factors: { data: new Float32Array(n).fill(1), shape: [n] },
    w: { data: new Int8Array(n * n).fill(MAX_CODE), shape: [n, n] },
    [weightScale("w")]: { data: new Float32Array(n).fill(1 / MAX_CODE), shape: [n] },
  };
  await linalg.run("exact int8", () => exactnessGraph(rows, n), inputs, { y });
  return y.data.every((value) => Math.abs(value - n) < 1e-3 * n);
}

function exactnessGraph(rows: number, n: number): OnnxGraph {
  const g = new OnnxGraph();
  const x = g.input("x", [rows, n]);
  g.input("w", [n, n], "i8");
  g.input(weightScale("w"), [n]);
  g.output("y", int8Product(g, scaleRows(g, x, g.input("factors", [n])), "w"));
  return g;
}
