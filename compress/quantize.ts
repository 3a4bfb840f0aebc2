/**
 * From S, U, V to packed tensors. Columns are scaled by a root of d first: it evens the weights' columns out for the row-wise
 * scales (int4 S without it: perplexity 157 instead of 68 at rate 0.5), and the activations, divided by it, for
 * theirs. Nothing is lost in return for one multiply an input.
 */
import type { Shape2, WeightFormat } from "../kernels/layout.ts";
import { type CodedMatrix, packCoded, packF32, runColumnsOf, unpack } from "../kernels/packers.ts";
import type { StoredPart } from "../models/formats/artifact_header.ts";
import type { Recipe } from "../models/recipe.ts";
import { type Matrix, matrix, reciprocals, scaleColumns, subtract } from "./linalg/matrix.ts";
import type { Linalg } from "./linalg/runtime.ts";
import { type RoundingOptions, roundMatrix } from "./quantizers/rounding.ts";

export interface PackedTensor extends StoredPart {
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Exponent of d in the columns' scales. Rounding to nearest wants ½. Feedback chooses scales for what a column weighs, and
 * finds most columns even enough with ¼ (error on the inputs, int4, blocks 1, 14, 28 of SmolLM2, q / up / down in per cent:
 * d^0 0.081 / 0.408 / 0.312, d^¼ 0.087 / 0.398 / 0.299, d^½ 0.135 / 0.426 / 0.325).
 */
const EXPONENT = { nearest: 0.5, feedback: 0.25 } as const satisfies Record<Recipe["rounding"], number>;

/**
 * What an input is multiplied by before it is quantised, `[dIn]`: d^-½ (d^-¼), normalised so that its log-mean is 0.
 * Weights are multiplied by the reciprocal. Dead columns keep 1.
 */
export function inputScale(
  d: Float32Array,
  { rounding }: Pick<Recipe, "rounding">,
): Float32Array<ArrayBuffer> {
  let sum = 0, alive = 0;
  for (const x of d) {
    if (x <= 0) continue;
    sum += Math.log(x);
    alive++;
  }
  const mean = alive ? sum / alive : 0, exponent = EXPONENT[rounding];
  return Float32Array.from(d, (x) => x > 0 ? Math.exp(exponent * (mean - Math.log(x))) : 1);
}

/** H of the inputs as they are quantised: diag(scale) H diag(scale). */
export function toPackedMoments(H: Float32Array, scale: Float32Array): Matrix {
  const n = scale.length, out = matrix(n, n);
  for (let i = 0, at = 0; i < n; i++) {
    for (let j = 0; j < n; j++, at++) out.data[at] = H[at] * scale[i] * scale[j];
  }
  return out;
}

type CodedFormat = Exclude<WeightFormat, { kind: "f32" }>;

const shapeOf = (M: { readonly rows: number; readonly cols: number }): Shape2 => [M.rows, M.cols];
const asBytes = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => bytes as Uint8Array<ArrayBuffer>; // packers allocate plain memory

/** Packs values as they are. */
export function packExact(part: PackedTensor["part"], M: Matrix): PackedTensor {
  return { part, format: { kind: "f32" }, shape: shapeOf(M), bytes: asBytes(packF32(M.data, shapeOf(M))) };
}

/** Packs codes and scales as they are: dense, or in windows that hold every code other than 0. */
export function packCodes(
  part: PackedTensor["part"],
  format: CodedFormat,
  coded: CodedMatrix,
): PackedTensor {
  return { part, format, shape: shapeOf(coded), bytes: asBytes(packCoded(format, coded)) };
}

/** Rounds a matrix to a format's runs and packs it. */
export async function packRounded(
  part: PackedTensor["part"],
  M: Matrix,
  format: CodedFormat,
  options: Omit<RoundingOptions, "runColumns">,
): Promise<PackedTensor> {
  return packCodes(part, format, await roundMatrix(M, { ...options, runColumns: runColumnsOf(format) }));
}

/**
 * U and V with every rank's size split evenly: U_i √g, V_i / √g with g = |V_i| / |U_i|. Both are then quantised
 * row-wise; one scale for a column of U would let outlier rows of the output set it (2 perplexity at rate 0.3).
 */
export function balanceFactors(U: Matrix, V: Matrix): { readonly U: Matrix; readonly V: Matrix } {
  const rank = U.cols, u = new Float64Array(rank), v = new Float64Array(rank);
  U.data.forEach((x, at) => u[at % rank] += x * x);
  V.data.forEach((x, at) => v[Math.floor(at / V.cols)] += x * x);
  const factor = Float64Array.from(u, (x, i) => x > 0 && v[i] > 0 ? (v[i] / x) ** 0.25 : 1);
  return {
    U: matrix(U.rows, rank, U.data.map((x, at) => x * factor[at % rank])),
    V: matrix(rank, V.cols, V.data.map((x, at) => x / factor[Math.floor(at / V.cols)])),
  };
}

/** The values that a packed tensor stands for. */
export function unpackMatrix({ format, bytes, shape }: PackedTensor): Matrix {
  return matrix(shape[0], shape[1], unpack(format, bytes, shape) as Float32Array<ArrayBuffer>);
}

/** What the packed tensors compute, in the coordinates they were packed in. */
export async function reconstruct(tensors: readonly PackedTensor[], linalg: Linalg): Promise<Matrix> {
  const part = (name: PackedTensor["part"]) => {
    const tensor = tensors.find((t) => t.part === name);
    return tensor ? unpackMatrix(tensor) : null;
  };
  const main = part("w") ?? part("s")!, U = part("u"), V = part("v");
  if (!U || !V) return main;
  const L = await linalg.multiply(U, V);
  for (let i = 0; i < L.data.length; i++) L.data[i] += main.data[i];
  return L;
}

/** |(W - R) diag(d)|² / |W diag(d)|²; 0 for a layer that never has an input. */
export function layerError(W: Matrix, R: Matrix, d: Float32Array): number {
  let lost = 0, all = 0;
  const E = subtract(W, R);
  for (let i = 0, at = 0; i < W.rows; i++) {
    for (let j = 0; j < W.cols; j++, at++) {
      const d2 = d[j] * d[j];
      lost += E.data[at] * E.data[at] * d2;
      all += W.data[at] * W.data[at] * d2;
    }
  }
  return all > 0 ? lost / all : 0;
}

/** Into the packed coordinates: columns times 1 / scale. */
export function toPackedColumns(M: Matrix, scale: Float32Array | null): Matrix {
  return scale ? scaleColumns(M, reciprocals(scale)) : M;
}

/** Back: columns times scale. */
export function fromPackedColumns(M: Matrix, scale: Float32Array | null): Matrix {
  return scale ? scaleColumns(M, scale) : M;
}
