/** What storing a dense layer in few bits costs, measured before anything is decided. */
import { decode } from "../../kernels/packers.ts";
import { CHUNK } from "../../kernels/layout.ts";
import type { Recipe } from "../../models/recipe.ts";
import { type Matrix, matrix, subtract } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { inputScale, toPackedColumns, toPackedMoments } from "../quantize.ts";
import { GRIDS } from "../quantizers/grid.ts";
import { roundingMoments, roundMatrix } from "../quantizers/rounding.ts";

/** Rows of a layer that are rounded: each has codes of its own, so some stand for all. */
const ROWS = 128;

/** trace(E H E') / trace(W H W') of the dense layer. */
export interface RoundingErrors {
  readonly int8: number;
  readonly int4: number;
}

/** For the layers of one input. */
export async function roundingProbe(
  { d, H }: { readonly d: Float32Array; readonly H: Float32Array },
  { rounding, linalg }: { readonly rounding: Recipe["rounding"]; readonly linalg: Linalg },
): Promise<(W: Matrix) => Promise<RoundingErrors>> {
  const scale = inputScale(d, { rounding }), packedH = toPackedMoments(H, scale);
  const moments = rounding === "feedback" ? await roundingMoments(packedH, linalg) : null;
  return async (W) => {
    const some = toPackedColumns(someRows(W), scale), all = await energyOn(some, packedH, linalg);
    const errorOf = async (values: "int8" | "int4") => {
      const coded = await roundMatrix(some, { grid: GRIDS[values], runColumns: CHUNK, moments, linalg });
      const E = subtract(some, matrix(some.rows, some.cols, decode(coded)));
      return all === 0 ? 0 : await energyOn(E, packedH, linalg) / all;
    };
    return { int8: await errorOf("int8"), int4: await errorOf("int4") };
  };
}

function someRows({ rows, cols, data }: Matrix): Matrix {
  const step = Math.max(1, Math.floor(rows / ROWS)), out = matrix(Math.ceil(rows / step), cols);
  for (let i = 0; i < out.rows; i++) {
    out.data.set(data.subarray(i * step * cols, (i * step + 1) * cols), i * cols);
  }
  return out;
}

/** trace(E H E') */
export async function energyOn(E: Matrix, H: Matrix, linalg: Linalg): Promise<number> {
  const EH = await linalg.multiply(E, H);
  let sum = 0;
  for (let at = 0; at < E.data.length; at++) sum += E.data[at] * EH.data[at];
  return sum;
}
