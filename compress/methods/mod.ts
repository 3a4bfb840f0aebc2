import type { CompressionMethod } from "./method.ts";
import { magnitude } from "./magnitude.ts";
import { oats } from "./oats.ts";
import { oatmill } from "./oatmill.ts";
import { sparsegpt } from "./sparsegpt.ts";
import { svd } from "./svd.ts";
import { wanda } from "./wanda.ts";

/** Every method by its recipe name; `none` compresses nothing and has no entry. */
export const METHODS: Readonly<Record<CompressionMethod["name"], CompressionMethod>> = {
  magnitude,
  wanda,
  sparsegpt,
  svd,
  oats,
  oatmill,
};
