/** SVD against the smallest error any matrix of its rank can have, in f64. */
import assert from "node:assert/strict";
import { SVD_WEIGHTINGS } from "../../models/recipe.ts";
import { symmetricEigen } from "../linalg/factor.ts";
import { DAMPING } from "../refine.ts";
import { killColumns, outcome, quadratic, squares, type TestLayer, testLayer } from "./_test_layers.ts";
import { subtract } from "../linalg/matrix.ts";

/** Of the error: f32 products, and 20 steps of subspace iteration. */
const TOLERANCE = { exact: 1e-3, fast: 1e-2 };

/** M of the norm tr(E M E'). */
function norm({ d, H }: TestLayer, weighting: (typeof SVD_WEIGHTINGS)[number]): Float64Array {
  const n = d.length;
  if (weighting !== "moments") return squares(weighting === "none" ? new Float32Array(n).fill(1) : d);
  const M = Float64Array.from(H);
  for (let i = 0; i < n; i++) M[i * n + i] += DAMPING * d[i] * d[i];
  return M;
}

/** The sum of all but the r largest eigenvalues of W M W' (Eckart and Young). */
function smallestError({ W: { rows, cols, data } }: TestLayer, M: Float64Array, r: number): number {
  const G = new Float64Array(rows * rows);
  for (let a = 0; a < rows; a++) {
    const row = Float64Array.from({ length: cols }, (_, j) => {
      let sum = 0;
      for (let i = 0; i < cols; i++) sum += data[a * cols + i] * M[i * cols + j];
      return sum;
    });
    for (let b = 0; b < rows; b++) {
      for (let j = 0; j < cols; j++) G[a * rows + b] += row[j] * data[b * cols + j];
    }
  }
  return symmetricEigen(G, rows).values.slice(0, rows - r).reduce((sum, x) => sum + Math.max(0, x), 0);
}

for (const shape of [[40, 72], [72, 40]] as const) {
  for (const weighting of SVD_WEIGHTINGS) {
    Deno.test(`svd of [${shape}] weighted by ${weighting} has the smallest error of its rank`, async () => {
      const layer = testLayer(shape, 31), M = norm(layer, weighting);
      for (const decomposition of ["exact", "fast"] as const) {
        const { R, U, V } = await outcome(layer, {
          ...{ method: "svd", rate: 0.5, pattern: "unstructured", svd_weighting: weighting, decomposition },
        });
        assert.equal(U.cols, Math.floor(0.5 * 72 * 40 / (72 + 40)));
        assert.equal(V.rows, U.cols);
        const error = quadratic(subtract(layer.W, R), M), least = smallestError(layer, M, U.cols);
        assert.ok(
          error < least * (1 + TOLERANCE[decomposition]),
          `${decomposition}: ${error} against ${least}`,
        );
        assert.ok(error > least * (1 - TOLERANCE.exact));
      }
    });
  }
}

Deno.test("svd spends nothing on dead columns", async () => {
  const layer = testLayer([24, 32], 32);
  killColumns(layer, [0, 7, 31]);
  for (const weighting of SVD_WEIGHTINGS) {
    const { R } = await outcome(layer, { method: "svd", rate: 0.5, svd_weighting: weighting });
    for (let i = 0; i < 24; i++) for (const j of [0, 7, 31]) assert.equal(R.data[i * 32 + j], 0);
  }
});
