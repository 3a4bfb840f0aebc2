/**
 * What a compression method answers: the low-rank part of a layer, and how much every entry of the rest W - L is worth.
 * Which of them are then stored is the pattern's business (select.ts), their values are W - L.
 */
import type { Matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import type { LayerBudget } from "../budget.ts";
import type { Recipe } from "../../models/recipe.ts";

export interface Layer {
  /** `[dOut, dIn]` */
  readonly W: Matrix;
  /** `[dIn]` root mean square of each input column over the calibration tokens; 0 for a dead one. */
  readonly d: Float32Array;
}

export interface MethodOptions {
  readonly budget: LayerBudget;
  /** The pattern's choice of entries by their scores (select.ts): 1 = stored. */
  readonly select: (scores: Matrix) => Uint8Array;
  readonly iterations: number;
  readonly decomposition: Recipe["decomposition"];
  readonly seed: number;
  readonly linalg: Linalg;
}

export interface Decomposition {
  /** `[dOut, r]` */
  readonly U: Matrix;
  /** `[r, dIn]` */
  readonly V: Matrix;
  /** `[dOut, dIn]`, >= 0: what dropping an entry of W - L costs. */
  readonly scores: Matrix;
}

export interface CompressionMethod {
  readonly name: Exclude<Recipe["method"], "none">;
  /** Whether it makes an L; without one κ is 0. */
  readonly lowRank: boolean;
  compress(layer: Layer, options: MethodOptions): Promise<Decomposition>;
}
