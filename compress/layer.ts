/** Worker side: everything that happens to one linear layer, from its weights and statistics to packed tensors. */
import type { Shape2, WindowCount } from "../kernels/layout.ts";
import { slotsNeeded } from "../kernels/packers.ts";
import type { LayerReport } from "../models/formats/artifact_header.ts";
import type { Recipe } from "../models/recipe.ts";
import { layerInsight, type LayerMeasures } from "./insight/layer_insight.ts";
import type { LayerPlan } from "./layer_plan.ts";
import { type Matrix, matrix, nonZeroMask, nonZeros, scale, subtract, unitPower } from "./linalg/matrix.ts";
import type { Linalg } from "./linalg/runtime.ts";
import type { PreparedMethod, SparseLowRank } from "./methods/method.ts";
import {
  balanceFactors,
  fromPackedColumns,
  layerError,
  type PackedTensor,
  packExact,
  packRounded,
  reconstruct,
  toPackedColumns,
  unpackMatrix,
} from "./quantize.ts";
import { GRIDS } from "./quantizers/grid.ts";
import { type RoundingMoments, roundingMoments } from "./quantizers/rounding.ts";
import { refine, type UnitMoments } from "./refine.ts";
import { reselect } from "./reselect.ts";
import { entryChoice, rowChoice } from "./select.ts";
import { sparseAsItIs } from "./source_zeros.ts";
import { budgetSlots, denseFormat, denseValues, sparseFormat, tooLarge } from "./stored_parts.ts";

/** One layer of an input group. */
export interface LayerInput {
  readonly name: string;
  /** `[dOut, dIn]`; replaced by S + L when `replace` is set. */
  readonly W: Float32Array<SharedArrayBuffer>;
  readonly shape: Shape2;
  readonly plan: LayerPlan;
}

export interface LayerResult {
  readonly tensors: readonly PackedTensor[];
  readonly report: LayerReport;
  readonly insight: LayerMeasures;
}

/** What the layers of one input share. */
export interface LayerContext {
  readonly recipe: Recipe;
  readonly blockChunks: number;
  readonly replace: boolean;
  /** `[dIn]` root mean square of the inputs; 1 with method `none`. */
  readonly d: Float32Array;
  /** The inputs' statistics, for the insight; null with method `none`. */
  readonly inputs: { readonly d: Float32Array; readonly H: Float32Array<SharedArrayBuffer> | null } | null;
  /** What the inputs are multiplied by before they are quantised; null when they are not. */
  readonly scale: Float32Array | null;
  /** The recipe's method, ready for these inputs; null with method `none`. */
  readonly method: PreparedMethod | null;
  /** For the refit; null without one. */
  readonly moments: UnitMoments | null;
  /** For rounding with feedback, in packed columns; null rounds to nearest. */
  readonly roundingMoments: RoundingMoments | null;
  readonly linalg: Linalg;
}

export async function compressLayer(layer: LayerInput, context: LayerContext): Promise<LayerResult> {
  const { linalg, scale, d } = context;
  const parts = await sparseLowRank(layer, context);
  // Only now: a copy less while the decomposition holds a dozen matrices of this size.
  const W = plainWeights(layer);
  if (parts && context.replace) {
    const L = await linalg.multiply(parts.U, parts.V);
    for (let i = 0; i < L.data.length; i++) layer.W[i] = parts.S.data[i] + L.data[i];
  }
  const { plan } = layer;
  // A budget whose windows came out too large leaves a dense layer.
  const values = !parts && plan.budget ? denseValues(context.recipe) : plan.values;
  const tensors = parts
    ? await packParts(W, parts, plan, context)
    : [await packDenseLayer(W, values, context)];
  const R = fromPackedColumns(await reconstruct(tensors, linalg), scale);
  const { inputs } = context;
  const insight = await layerInsight(
    {
      name: layer.name,
      W,
      R,
      tensors,
      d: inputs?.d ?? null,
      H: inputs?.H ? new Float32Array(inputs.H) : null,
      plain: false,
    },
    linalg,
  );
  const error = layerError(W, R, d);
  return { tensors, report: report(layer, tensors, { parts, values, error }), insight };
}

/** In memory of this thread, which ONNX Runtime reads. */
const plainWeights = ({ W, shape: [dOut, dIn] }: LayerInput): Matrix =>
  matrix(dOut, dIn, new Float32Array(W));

/** S, U and V, or null when the layer stays dense. Works on W in a unit of its own, so that no product overflows. */
async function sparseLowRank(
  layer: LayerInput,
  context: LayerContext,
): Promise<(SparseLowRank & { readonly slots: WindowCount | null }) | null> {
  const power = unitPower(layer.W), W = plainWeights(layer);
  for (let i = 0; i < W.data.length; i++) W.data[i] *= power;
  const parts = await decompose(W, layer, context);
  return parts && { ...parts, S: scale(parts.S, 1 / power), V: scale(parts.V, 1 / power) };
}

async function decompose(
  W: Matrix,
  { plan: { budget, values, zerosOut }, shape }: LayerInput,
  { recipe, blockChunks, method, moments, linalg }: LayerContext,
): Promise<(SparseLowRank & { readonly slots: WindowCount | null }) | null> {
  if (zerosOut) return sparseAsItIs(W, { values, blockChunks });
  if (!budget || !method) return null;
  const choice = entryChoice(budget, { dIn: shape[1], blockChunks });
  // The pattern's own choice can wait for the last rounds of reselect(): matching windows takes 0.1 s per million weights.
  const again = moments !== null && recipe.reselect > 0;
  let start = await method.compress({ W }, {
    budget,
    choice: again ? rowChoice(budget.kept, shape[1]) : choice,
  });
  if (again) {
    start = await reselect(W, start, { choice, kept: budget.kept, rounds: recipe.reselect, moments, linalg });
  }
  const { mask, U } = start;
  const slots = values === "f32"
    ? null
    : budgetSlots(budget.windows) ?? slotsNeeded(mask, shape, blockChunks);
  if (slots && tooLarge(shape, { ...slots, rank: U.cols }, { values, blockChunks })) return null;
  const { S, V } = start;
  const parts = moments
    ? await refine(W, start, { mask, moments, nearly: recipe.reselect > 0, linalg })
    : { S, U, V };
  return { ...parts, slots };
}

/** V first, then U on what V passes on, then S: each makes up for the rounding of those before it. */
async function packParts(
  W: Matrix,
  { S, U, V, slots }: SparseLowRank & { readonly slots: WindowCount | null },
  plan: LayerPlan,
  context: LayerContext,
): Promise<PackedTensor[]> {
  const { blockChunks, scale, linalg } = context, { values } = plan;
  const format = sparseFormat(plan, slots, blockChunks);
  if (format.kind === "f32" || values === "f32") {
    const factors = balanceFactors(U, V);
    const parts = [packExact("s", S)];
    return U.cols === 0 ? parts : [...parts, packExact("v", factors.V), packExact("u", factors.U)];
  }
  const packedS = toPackedColumns(S, scale), mask = nonZeroMask(packedS.data);
  const options = { grid: GRIDS[values], moments: context.roundingMoments, linalg, mask };
  let target = toPackedColumns(W, scale);
  if (U.cols === 0) return [await packRounded("s", packedS, format, { ...options, target })];
  const factors = await packFactors(balanceFactors(U, toPackedColumns(V, scale)), context);
  target = subtract(target, await linalg.multiply(unpackMatrix(factors.u), unpackMatrix(factors.v)));
  return [await packRounded("s", packedS, format, { ...options, target }), factors.v, factors.u];
}

/** Both factors of L at int8. Columns of U are all but orthogonal after the refit, so rows of V can be rounded one by one. */
async function packFactors(
  { U, V }: Pick<SparseLowRank, "U" | "V">,
  { roundingMoments: moments, linalg }: LayerContext,
): Promise<{ readonly u: PackedTensor; readonly v: PackedTensor }> {
  const options = { grid: GRIDS.int8, linalg }, format = { kind: "q8" } as const;
  const v = await packRounded("v", V, format, { ...options, moments });
  const passed = moments && await passedOn(unpackMatrix(v), moments, linalg);
  return { v, u: await packRounded("u", U, format, { ...options, moments: passed }) };
}

/** Moments of V x. */
async function passedOn(V: Matrix, { H }: RoundingMoments, linalg: Linalg): Promise<RoundingMoments> {
  return await roundingMoments(
    await linalg.multiply(await linalg.multiply(V, H), V, { transB: true }),
    linalg,
  );
}

async function packDenseLayer(
  W: Matrix,
  values: LayerPlan["values"],
  { scale, linalg, roundingMoments: moments }: LayerContext,
): Promise<PackedTensor> {
  const format = denseFormat(values);
  if (values === "f32" || format.kind === "f32") return packExact("w", W);
  return await packRounded("w", toPackedColumns(W, scale), format, { grid: GRIDS[values], moments, linalg });
}

function report(
  { name, shape }: LayerInput,
  tensors: readonly PackedTensor[],
  { parts, values, error }: {
    readonly parts: SparseLowRank | null;
    readonly values: LayerPlan["values"];
    readonly error: number;
  },
): LayerReport {
  const size = shape[0] * shape[1], rank = parts?.U.cols ?? 0;
  const stored = parts ? nonZeros(parts.S) : size;
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
    values,
    error,
  };
}
