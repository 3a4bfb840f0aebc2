/**
 * From S, U, V to packed tensors. Columns are scaled by d^½ first: it evens the weights' columns out for the row-wise
 * scales (int4 S without it: perplexity 157 instead of 68 at rate 0.5), and the activations, divided by it, for
 * theirs. Nothing is lost in return for one multiply an input.
 */
import type { Shape2, WeightFormat } from "../kernels/layout.ts";
import { packF32, packQ4, packQ8, packWindows, unpack } from "../kernels/packers.ts";
import type { StoredPart } from "../models/formats/artifact_header.ts";
import { type Matrix, matrix, reciprocals, scaleColumns, subtract } from "./linalg/matrix.ts";
import type { Linalg } from "./linalg/runtime.ts";

export interface PackedTensor extends StoredPart {
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * What an input is multiplied by before it is quantised, `[dIn]`: d^-½, normalised so that its log-mean is 0. Weights
 * are multiplied by the reciprocal. Dead columns keep 1.
 */
export function inputScale(d: Float32Array): Float32Array<ArrayBuffer> {
  let sum = 0, alive = 0;
  for (const x of d) {
    if (x <= 0) continue;
    sum += Math.log(x);
    alive++;
  }
  const mean = alive ? sum / alive : 0;
  return Float32Array.from(d, (x) => x > 0 ? Math.exp((mean - Math.log(x)) / 2) : 1);
}

const shapeOf = (M: Matrix): Shape2 => [M.rows, M.cols];
const asBytes = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => bytes as Uint8Array<ArrayBuffer>; // packers allocate plain memory

/** Packs a dense matrix in a dense format. */
export function packDenseMatrix(
  M: Matrix,
  part: PackedTensor["part"],
  kind: "f32" | "q8" | "q4",
): PackedTensor {
  const pack = { f32: packF32, q8: packQ8, q4: packQ4 }[kind];
  return { part, format: { kind }, shape: shapeOf(M), bytes: asBytes(pack(M.data, shapeOf(M))) };
}

/** @param format a dense format for S with its zeros, or windows that hold every entry */
export function packSparse(S: Matrix, format: WeightFormat): PackedTensor {
  if (format.kind !== "windows") return packDenseMatrix(S, "s", format.kind);
  return { part: "s", format, shape: shapeOf(S), bytes: asBytes(packWindows(S.data, shapeOf(S), format)) };
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
function unpackMatrix({ format, bytes, shape }: PackedTensor): Matrix {
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
