/** Which codes a number of bits leaves, and the smallest kernel format that holds them. */
import { type CodeGrid, Q4_GRID, Q8_GRID } from "../../kernels/packers.ts";
import type { Recipe } from "../../models/recipe.ts";

export type CodedValues = Exclude<Recipe["values"], "f32">;

/**
 * Scales are signed, so the code that has no counterpart lies on the side of a run's largest value. `int8` has the 7 bits
 * that kernels can add up (layout.ts).
 */
export const GRIDS: Readonly<Record<CodedValues, CodeGrid>> = {
  int8: Q8_GRID,
  int5: { min: -16, max: 15 },
  int4: Q4_GRID,
  int3: { min: -4, max: 3 },
  int2: { min: -2, max: 1 },
};

/** Bits that a code takes in memory: there are kernels for two widths. */
export const codeBits = (values: CodedValues): 4 | 8 => GRIDS[values].min < Q4_GRID.min ? 8 : 4;

export const clampToGrid = ({ min, max }: CodeGrid, code: number): number =>
  code > max ? max : code < min ? min : code;
