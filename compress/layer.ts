/** Worker side: everything that happens to one linear layer, from its weights and statistics to packed tensors. */
import type { Shape2 } from "../kernels/layout.ts";
import { windowsNeeded } from "../kernels/packers.ts";
import type { LayerReport } from "../models/formats/artifact_header.ts";
import type { Recipe } from "../models/recipe.ts";
import { type Matrix, matrix, subtract } from "./linalg/matrix.ts";
import type { Linalg } from "./linalg/runtime.ts";
import { METHODS } from "./methods/mod.ts";
import {
  balanceFactors,
  fromPackedColumns,
  inputScale,
  layerError,
  packDenseMatrix,
  type PackedTensor,
  packSparse,
  reconstruct,
  toPackedColumns,
} from "./quantize.ts";
import { refine, type SparseLowRank } from "./refine.ts";
import { selectEntries } from "./select.ts";
import { denseKind, factorKind, sparseBudget, sparseFormat, tooLarge } from "./stored_parts.ts";

export interface LayerJob {
  readonly kind: "layer";
  readonly name: string;
  /** `[dOut, dIn]`; replaced by S + L when `replace` is set. */
  readonly W: Float32Array<SharedArrayBuffer>;
  readonly shape: Shape2;
  /** `[dIn]`; null with method `none`. */
  readonly d: Float32Array<SharedArrayBuffer> | null;
  /** `[dIn, dIn]`, when the recipe refines. */
  readonly H: Float32Array<SharedArrayBuffer> | null;
  /** This layer's ρ. */
  readonly rate: number;
  readonly recipe: Recipe;
  readonly blockChunks: number;
  readonly replace: boolean;
}

export interface LayerResult {
  readonly tensors: readonly PackedTensor[];
  readonly report: LayerReport;
}

export async function compressLayer(job: LayerJob, linalg: Linalg): Promise<LayerResult> {
  const { recipe, shape } = job;
  const W = matrix(shape[0], shape[1], new Float32Array(job.W));
  const d = job.d ? new Float32Array(job.d) : new Float32Array(shape[1]).fill(1);
  const scale = recipe.values === "f32" || !job.d ? null : inputScale(d);
  const parts = await sparseLowRank(W, d, { ...job, linalg });
  if (parts && job.replace) {
    const L = await linalg.multiply(parts.U, parts.V);
    for (let i = 0; i < L.data.length; i++) job.W[i] = parts.S.data[i] + L.data[i];
  }
  const tensors = parts ? packParts(parts, { ...job, scale }) : packDenseLayer(W, { ...job, scale });
  const R = fromPackedColumns(await reconstruct(tensors, linalg), scale);
  return { tensors, report: report(job, tensors, parts, layerError(W, R, d)) };
}

/** S, U and V, or null when the layer stays dense. */
async function sparseLowRank(
  W: Matrix,
  d: Float32Array,
  { recipe, rate, H, shape, blockChunks, linalg }: LayerJob & { readonly linalg: Linalg },
): Promise<(SparseLowRank & { readonly windows: number | null }) | null> {
  const budget = sparseBudget(shape, rate, { recipe, blockChunks });
  if (!budget || recipe.method === "none") return null;
  const select = (scores: Matrix) => selectEntries(scores, budget, { blockChunks });
  const { U, V, scores } = await METHODS[recipe.method].compress({ W, d }, {
    budget,
    select,
    iterations: recipe.iterations,
    decomposition: recipe.decomposition,
    seed: recipe.calibration.seed,
    linalg,
  });
  const mask = select(scores);
  const windows = recipe.values === "f32" ? null : budget.windows ?? windowsNeeded(mask, shape, blockChunks);
  if (
    windows !== null && tooLarge(shape, { windows, rank: U.cols }, { values: recipe.values, blockChunks })
  ) {
    return null;
  }
  const rest = subtract(W, await linalg.multiply(U, V));
  const S = matrix(W.rows, W.cols, rest.data.map((x, i) => mask[i] && d[i % W.cols] > 0 ? x : 0));
  const start = { S, U, V };
  const parts = H ? await refine(W, start, { mask, d, H, linalg }) : start;
  return { ...parts, windows };
}

type PackContext = LayerJob & { readonly scale: Float32Array | null };

function packParts(
  { S, U, V, windows }: SparseLowRank & { readonly windows: number | null },
  { recipe, blockChunks, scale }: PackContext,
): PackedTensor[] {
  const tensors = [packSparse(toPackedColumns(S, scale), sparseFormat(recipe, windows, blockChunks))];
  if (U.cols === 0) return tensors;
  const kind = factorKind(recipe);
  const factors = balanceFactors(U, toPackedColumns(V, scale));
  return [...tensors, packDenseMatrix(factors.V, "v", kind), packDenseMatrix(factors.U, "u", kind)];
}

function packDenseLayer(W: Matrix, { recipe, scale }: PackContext): PackedTensor[] {
  return [packDenseMatrix(toPackedColumns(W, scale), "w", denseKind(recipe))];
}

function report(
  { name, shape }: LayerJob,
  tensors: readonly PackedTensor[],
  parts: SparseLowRank | null,
  error: number,
): LayerReport {
  const size = shape[0] * shape[1], rank = parts?.U.cols ?? 0;
  const stored = parts ? parts.S.data.reduce((n, x) => n + +(x !== 0), 0) : size;
  const { format } = tensors[0];
  const bits = format.kind === "f32"
    ? 32
    : format.kind === "q4" || (format.kind === "windows" && format.bits === 4)
    ? 4
    : 8;
  return {
    name,
    shape,
    rate: 1 - stored / size - rank * (shape[0] + shape[1]) / size,
    rank,
    kept: stored / size,
    bits,
    error,
  };
}
