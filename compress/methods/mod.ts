import type { Recipe } from "../../models/recipe.ts";
import type { CompressionMethod } from "./method.ts";
import { magnitude } from "./magnitude.ts";
import { oats } from "./oats.ts";
import { oatmill } from "./oatmill.ts";
import { sparsegpt } from "./sparsegpt.ts";
import { svd } from "./svd.ts";
import { wanda } from "./wanda.ts";

/** Every method that compresses layers one by one, by its recipe name: not `none`, nor `structured`, which prunes blocks. */
export const METHODS: Readonly<Record<CompressionMethod["name"], CompressionMethod>> = {
  magnitude,
  wanda,
  sparsegpt,
  svd,
  oats,
  oatmill,
};

/** The recipe's method for single layers; null when they stay as they are. */
export const layerMethod = ({ method }: Pick<Recipe, "method">): CompressionMethod | null =>
  method === "none" || method === "structured" ? null : METHODS[method];
