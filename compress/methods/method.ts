/**
 * What a compression method is: from what is known of a layer's inputs, and then its weights, to W ~ S + U V. Layers that
 * share an input (q, k and v) are prepared for once. Which entries S may have is the pattern's business (select.ts).
 */
import type { Recipe } from "../../models/recipe.ts";
import type { LayerBudget } from "../budget.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import type { EntryChoice } from "../select.ts";

/** What a method must know of its inputs: nothing, d, or H as well. */
export type Needs = "nothing" | "scales" | "moments";

/** What is known of the inputs X of one or more layers. */
export interface InputStatistics {
  /** `[dIn]` root mean square of each input column over the calibration tokens; 0 for a dead one. */
  readonly d: Float32Array;
  /** `[dIn, dIn]` X'X / tokens; null unless the method or the refit needs it. */
  readonly H: Float32Array | null;
}

export interface MethodContext {
  readonly recipe: Recipe;
  readonly linalg: Linalg;
}

export interface LayerOptions {
  readonly budget: LayerBudget;
  /** The pattern's choice of entries by their scores. */
  readonly choice: EntryChoice;
}

export interface SparseLowRank {
  /** `[dOut, dIn]`, zero outside the mask. */
  readonly S: Matrix;
  /** `[dOut, r]`; no columns when there is no L. */
  readonly U: Matrix;
  /** `[r, dIn]` */
  readonly V: Matrix;
}

export interface Decomposition extends SparseLowRank {
  /** `[dOut, dIn]`: 1 where S may have an entry, as the pattern chose. */
  readonly mask: Uint8Array;
}

/** A method that knows its inputs. */
export interface PreparedMethod {
  /** @param layer.W `[dOut, dIn]` */
  compress(layer: { readonly W: Matrix }, options: LayerOptions): Promise<Decomposition>;
}

export interface CompressionMethod {
  readonly name: Exclude<Recipe["method"], "none" | "structured">;
  /** κ: the share of the kept parameters that its L takes. */
  rankRatio(recipe: Pick<Recipe, "rank_ratio">): number;
  needs(recipe: Recipe): Needs;
  /** What all layers with these inputs share. */
  prepare(inputs: InputStatistics, context: MethodContext): Promise<PreparedMethod>;
}

/** No L: U and V of rank 0. */
export const noLowRank = ({ rows, cols }: Matrix): Pick<SparseLowRank, "U" | "V"> => ({
  U: matrix(rows, 0),
  V: matrix(0, cols),
});

/** The entries of M in the mask, without dead columns: nothing ever reads them. */
export function maskedEntries(M: Matrix, mask: Uint8Array, d: Float32Array): Matrix {
  const S = matrix(M.rows, M.cols);
  for (let i = 0, at = 0; i < M.rows; i++) {
    for (let j = 0; j < M.cols; j++, at++) if (mask[at] && d[j] > 0) S.data[at] = M.data[at];
  }
  return S;
}
