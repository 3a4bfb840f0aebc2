/** Synthetic models stored as compression would store them: the ones that are asked for, and own ones to compare with. */
import { chooseBlockChunks, factorKind, storedParts } from "../compress/stored_parts.ts";
import { DENSE_BLOCK_CHUNKS, type DenseValues } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import { syntheticModel } from "../models/synthetic.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import type { Rival } from "./rivals.ts";

export interface RecipeOptions {
  readonly shape: SyntheticShape;
  /** ρ of each model that is asked for; 0 is a dense one. */
  readonly rates: readonly number[];
  readonly rankRatio: number;
  readonly values: DenseValues;
  readonly against: readonly Rival[];
}

/** @param recipe rate: ρ, the same for all layers; 0 with method `none` */
function compressed(
  shape: SyntheticShape,
  recipe: { method: "none" | "wanda" | "oats"; rate: number; rank_ratio: number; values: DenseValues },
): PackedModel {
  const spec = SYNTHETIC_SPECS[shape];
  const dense = recipe.method === "none";
  const blockChunks = dense ? DENSE_BLOCK_CHUNKS : chooseBlockChunks(spec);
  const name = dense ? `dense ${recipe.values}` : `${recipe.method} ${recipe.rate} ${recipe.values}`;
  return syntheticModel(name, spec, {
    blockChunks,
    parts: (size) =>
      storedParts(size, recipe.rate, { recipe: { ...recipe, pattern: "windows" }, blockChunks }),
    table: { kind: factorKind(recipe) },
    inputScales: !dense && recipe.values !== "f32",
  });
}

const dense = (shape: SyntheticShape, values: DenseValues): PackedModel =>
  compressed(shape, { method: "none", rate: 0, rank_ratio: 0, values });

export const askedModels = ({ shape, rates, rankRatio, values }: RecipeOptions): PackedModel[] =>
  rates.map((rate) =>
    rate === 0
      ? dense(shape, values)
      : compressed(shape, { method: "oats", rate, rank_ratio: rankRatio, values })
  );

/** Wanda comes at every rate that is asked for. */
export function rivalModels({ shape, against, rates, values }: RecipeOptions): PackedModel[] {
  return against.flatMap((rival) => {
    if (rival === "onnxruntime") return [];
    if (rival !== "wanda") return [dense(shape, rival.slice("dense-".length) as DenseValues)];
    return rates.filter((rate) => rate > 0).map((rate) =>
      compressed(shape, { method: "wanda", rate, rank_ratio: 0, values })
    );
  });
}
