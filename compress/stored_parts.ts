/**
 * Which packed tensors a compressed layer consists of, and their formats and shapes: decided by counts alone, before any
 * weight is looked at.
 */
import {
  CHUNK,
  finestSlots,
  packedBytes,
  type Shape2,
  type WeightFormat,
  type WindowCount,
} from "../kernels/layout.ts";
import type { StoredPart } from "../models/formats/artifact_header.ts";
import type { Recipe } from "../models/recipe.ts";
import { linearShapes, type ModelSpec } from "../models/spec.ts";
import { budgetBytes, DENSE_WINDOWS, type LayerBudget, layerBudget } from "./budget.ts";
import { layerMethod } from "./methods/mod.ts";
import { codeBits } from "./quantizers/grid.ts";

/** Activation block in chunks: the largest of 4, 3, 2 that divides the layers' widths, so that no block is cut short. */
export function blockChunksOf(widths: readonly number[]): number {
  const chunks = widths.map((width) => Math.ceil(width / CHUNK));
  return [4, 3, 2].find((n) => chunks.every((count) => count % n === 0)) ?? 4;
}

/** That of a model's linear layers. */
export const chooseBlockChunks = (spec: ModelSpec): number =>
  blockChunksOf(Object.values(linearShapes(spec)).map((shape) => shape![1]));

/**
 * A layer stays dense when its packed S and L take more than this times the bytes of int8 weights. A little more is
 * fine: they cost half the multiplications (windows of 8 bits with rank ratio 0.25: 0.94-0.95 times the bytes at rate
 * 0.3, 1.09-1.11 at 0.2).
 */
const LARGEST_SHARE_OF_DENSE = 1.25;

type DenseFormat = Extract<WeightFormat, { kind: "f32" | "q8" | "q4" }>;

/** Whether S and L of this many windows and this rank are packed at all (not asked with f32 values: exact comparisons). */
export function tooLarge(
  shape: Shape2,
  { windows, rank }: { readonly windows: number; readonly rank: number },
  { values, blockChunks }: { readonly values: Recipe["values"]; readonly blockChunks: number },
): boolean {
  if (values === "f32") return false;
  const bits = codeBits(values);
  return budgetBytes(shape, { rank, windows }, { bits, blockChunks }) >
    LARGEST_SHARE_OF_DENSE * packedBytes({ kind: "q8" }, shape);
}

/** The budget of a layer, or null when it stays dense: with methods that leave layers dense, with nothing to remove, or when too large. */
export function sparseBudget(
  shape: Shape2,
  rate: number,
  { recipe, blockChunks }: { readonly recipe: PartsRecipe; readonly blockChunks: number },
): LayerBudget | null {
  const method = layerMethod(recipe);
  if (!method || rate === 0) return null;
  const budget = layerBudget(shape, rate, {
    rankRatio: method.rankRatio(recipe),
    pattern: recipe.pattern,
  });
  const { windows, rank } = budget;
  return windows !== null && tooLarge(shape, { windows, rank }, { values: recipe.values, blockChunks })
    ? null
    : budget;
}

/** The slots of S for a budget's windows; an S without entries has one, empty. */
export const budgetSlots = (windows: number | null): WindowCount | null =>
  windows === null ? null : finestSlots(Math.max(1, windows));

/** @param slots of each chunk; null only with f32 values */
export function sparseFormat(
  { values }: Pick<Recipe, "values">,
  slots: WindowCount | null,
  blockChunks: number,
): WeightFormat {
  if (values === "f32" || slots === null) return { kind: "f32" };
  const bits = codeBits(values);
  if (slots.windows >= DENSE_WINDOWS) return { kind: bits === 4 ? "q4" : "q8" };
  return { kind: "windows", ...slots, bits, blockChunks };
}

/** A sparse model's dense layers stay at int8 even when S has fewer bits: they would lose more than S + L. */
export const denseValues = ({ values, method }: Pick<Recipe, "method" | "values">): Recipe["values"] =>
  values !== "f32" && layerMethod({ method }) ? "int8" : values;

/** The smallest dense format that holds the values' codes. */
export const denseFormat = (values: Recipe["values"]): DenseFormat =>
  values === "f32" ? { kind: "f32" } : { kind: codeBits(values) === 4 ? "q4" : "q8" };

/** U, V, the embedding and the head: int8 also where S has 4 bits. */
export const factorKind = ({ values }: Pick<Recipe, "values">): "f32" | "q8" =>
  values === "f32" ? "f32" : "q8";

type PartsRecipe = Pick<Recipe, "method" | "rank_ratio" | "pattern" | "values">;

/**
 * The tensors that compression to windows makes of a layer.
 *
 * @param shape `[dOut, dIn]` of W
 * @param rate the layer's ρ
 */
export function storedParts(
  shape: Shape2,
  rate: number,
  { recipe, blockChunks }: {
    readonly recipe: PartsRecipe & { readonly pattern: "windows" };
    readonly blockChunks: number;
  },
): StoredPart[] {
  const budget = sparseBudget(shape, rate, { recipe, blockChunks });
  if (!budget) return [{ part: "w", format: denseFormat(denseValues(recipe)), shape }];
  const [dOut, dIn] = shape;
  const rank = Math.min(budget.rank, dOut, dIn);
  const format = sparseFormat(recipe, budgetSlots(budget.windows), blockChunks);
  const parts: StoredPart[] = [{ part: "s", format, shape }];
  if (rank === 0) return parts;
  const factor: WeightFormat = { kind: factorKind(recipe) };
  return [...parts, { part: "v", format: factor, shape: [rank, dIn] }, {
    part: "u",
    format: factor,
    shape: [dOut, rank],
  }];
}
