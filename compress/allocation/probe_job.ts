/**
 * Worker side of measured allocation: a quick S + L of every layer that reads one input, and how a layer's error would
 * change with what it keeps.
 */
import { scaleColumns, subtract } from "../linalg/matrix.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { layerBudget } from "../budget.ts";
import { oats } from "../methods/oats.ts";
import { type Recipe, recipeSchema } from "../../models/recipe.ts";
import { unitMoments } from "../refine.ts";
import { entryChoice } from "../select.ts";
import { energyOn, type RoundingErrors, roundingProbe } from "./rounding_errors.ts";
import type { Shape2 } from "../../kernels/layout.ts";

/** Few alternations: the probe stands for an error of the right size and kind, not for the best S + L. */
const ITERATIONS = 4;
const RANK_RATIO = 0.125;
/** Rows of a layer behind its curve. */
const CURVE_ROWS = 128;
/** Points of a curve: share i / CURVE_POINTS of a row's entries kept. */
export const CURVE_POINTS = 64;

export interface ProbeLayer {
  /** `[dOut, dIn]` */
  readonly W: Float32Array<SharedArrayBuffer>;
  readonly shape: Shape2;
  /** `[dOut, dIn]`, takes the quick S + L. */
  readonly out: Float32Array<SharedArrayBuffer>;
}

export interface ProbeJob {
  readonly kind: "probe";
  readonly layers: readonly ProbeLayer[];
  /** `[dIn]` and `[dIn, dIn]` of the input. */
  readonly d: Float32Array<SharedArrayBuffer>;
  readonly H: Float32Array<SharedArrayBuffer>;
  /** ρ of the quick S + L. */
  readonly rate: number;
  /** How to round the dense layer to 8 and 4 bits; null: not asked for. */
  readonly rounding: Recipe["rounding"] | null;
}

/** Errors are trace(E H E') / trace(W H W'). */
export interface LayerProbe {
  /** Of the quick S + L. */
  readonly error: number;
  /** Share of a row's entries that its S has, and of the parameters that its L has. */
  readonly kept: number;
  readonly lowRank: number;
  /** Of the dense layer in 8 and 4 bits; null when not asked for. */
  readonly rounding: RoundingErrors | null;
  /**
   * Energy of what S would drop if it kept the share i / {@linkcode CURVE_POINTS} of every row, in parts of what the quick
   * one drops.
   */
  readonly curve: readonly number[];
}

export async function probeLayers(job: ProbeJob, linalg: Linalg): Promise<LayerProbe[]> {
  const d = new Float32Array(job.d), H = new Float32Array(job.H);
  const recipe = recipeSchema.parse({ method: "oats", iterations: ITERATIONS });
  const method = await oats.prepare({ d, H: null }, { recipe, linalg });
  const moments = unitMoments(d, H);
  const rounded = job.rounding && await roundingProbe({ d, H }, { rounding: job.rounding, linalg });
  const found: LayerProbe[] = [];
  for (const { W: values, shape, out } of job.layers) {
    const W = matrix(shape[0], shape[1], new Float32Array(values));
    const budget = layerBudget(shape, job.rate, { rankRatio: RANK_RATIO, pattern: "unstructured" });
    const { S, U, V } = await method.compress({ W }, {
      budget,
      choice: entryChoice(budget, { dIn: shape[1], blockChunks: 1 }),
    });
    const L = await linalg.multiply(U, V);
    for (let at = 0; at < out.length; at++) out[at] = S.data[at] + L.data[at];
    const all = await energyOn(scaleColumns(W, d), moments.H, linalg);
    const errorOf = async (R: Matrix) =>
      all === 0 ? 0 : await energyOn(scaleColumns(subtract(W, R), d), moments.H, linalg) / all;
    found.push({
      error: await errorOf(matrix(W.rows, W.cols, new Float32Array(out))),
      kept: budget.kept / shape[1],
      lowRank: U.cols * (shape[0] + shape[1]) / (shape[0] * shape[1]),
      rounding: rounded && await rounded(W),
      curve: droppedCurve(scaleColumns(subtract(W, L), d), budget.kept),
    });
  }
  return found;
}

/**
 * Sum of squares of the smallest entries of rows, by how many are kept, relative to `kept` of them; ones when nothing is
 * dropped there.
 */
export function droppedCurve(M: Matrix, kept: number): number[] {
  const { rows, cols } = M, step = Math.max(1, Math.floor(rows / CURVE_ROWS));
  const sums = new Float64Array(cols + 1); // by entries kept
  for (let i = 0; i < rows; i += step) {
    const row = M.data.slice(i * cols, (i + 1) * cols).map(Math.abs).sort();
    for (let j = 0, sum = 0; j < cols; j++) {
      sum += row[j] * row[j];
      sums[cols - 1 - j] += sum;
    }
  }
  const unit = sums[kept];
  return Array.from({ length: CURVE_POINTS + 1 }, (_, i) => {
    const at = i / CURVE_POINTS * cols, low = Math.floor(at), high = Math.min(cols, low + 1);
    const value = sums[low] + (at - low) * (sums[high] - sums[low]);
    return unit > 0 ? value / unit : 1;
  });
}
