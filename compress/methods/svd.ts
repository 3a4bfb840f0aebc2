/**
 * Low rank alone: L = U V nearest to W in a norm that knows the inputs or not. With C C' = M the nearest one in the norm
 * tr(E M E') is U_r U_r' W, U_r the first left singular vectors of W C; M is I (plain), diag(d²) (ASVD, arXiv 2312.05821) or H
 * (SVD-LLM, arXiv 2403.07378).
 */
import type { Recipe } from "../../models/recipe.ts";
import { orthonormalise } from "../linalg/factor.ts";
import { type Factors, subspaceStep, truncatedSvd } from "../linalg/low_rank.ts";
import { choleskyFactor, dampedFactor } from "../linalg/positive_definite.ts";
import { type Matrix, matrix, scaleColumns, unitSized } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { DAMPING, unitMoments } from "../refine.ts";
import type { CompressionMethod, InputStatistics, Needs } from "./method.ts";

const NEEDS: Readonly<Record<Recipe["svd_weighting"], Needs>> = {
  none: "nothing",
  scales: "scales",
  moments: "moments",
};
/** Columns of the basis beyond the rank: subspace iteration then converges at the rate of singular values further apart. */
const OVERSAMPLING = 16;

export const svd: CompressionMethod = {
  name: "svd",
  rankRatio: () => 1,
  needs: ({ svd_weighting }) => NEEDS[svd_weighting],
  async prepare(inputs, { recipe, linalg }) {
    const weigh = await weighting(inputs, { recipe, linalg });
    return {
      async compress({ W }, { budget: { rank } }) {
        const A = await weigh(W);
        const U = await leftVectors(A, Math.min(rank, W.rows, W.cols), { recipe, linalg });
        const alive = scaleColumns(W, inputs.d.map((x) => +(x > 0)));
        const V = await linalg.multiply(U, alive, { transA: true });
        return { S: matrix(W.rows, W.cols), U, V, mask: new Uint8Array(W.data.length) };
      },
    };
  },
};

/** W C `[dOut, dIn]`, with C as the recipe says; dead columns count nothing, nor do they in H. */
async function weighting(
  { d, H }: InputStatistics,
  { recipe, linalg }: { readonly recipe: Recipe; readonly linalg: Linalg },
): Promise<(W: Matrix) => Promise<Matrix>> {
  switch (recipe.svd_weighting) {
    case "none":
      return (W) => Promise.resolve(W);
    case "scales":
      return (W) => Promise.resolve(scaleColumns(W, unitSized(d)));
    case "moments": {
      if (!H) throw new RangeError("SVD weighted by moments needs the inputs' moments");
      const moments = unitMoments(d, H);
      const root = await dampedFactor(
        moments.H,
        DAMPING,
        (damped) => choleskyFactor(damped, linalg),
      );
      return (W) => linalg.multiply(scaleColumns(W, moments.d), root);
    }
  }
}

/** The first `rank` left singular vectors of A `[m, n]`: `[m, rank]`, orthonormal. */
async function leftVectors(
  A: Matrix,
  rank: number,
  { recipe, linalg }: { readonly recipe: Recipe; readonly linalg: Linalg },
): Promise<Matrix> {
  if (rank === 0) return matrix(A.rows, 0);
  if (recipe.decomposition === "exact") {
    return orthonormalise((await truncatedSvd(A, rank, linalg)).U, linalg);
  }
  const columns = Math.min(rank + OVERSAMPLING, A.rows, A.cols);
  const random = seededRandom(recipe.calibration.seed);
  let basis: Factors = { U: matrix(A.rows, 0), V: matrix(columns, A.cols) };
  for (let i = 0; i < basis.V.data.length; i++) basis.V.data[i] = random.normal();
  for (let i = 0; i < recipe.iterations; i++) basis = await subspaceStep(A, basis.V, linalg);
  const best = await truncatedSvd(basis.V, rank, linalg); // of U V: the basis holds more than the rank
  return orthonormalise(await linalg.multiply(basis.U, best.U), linalg);
}
