/** Layers for the tests of methods, and what a method makes of them. */
import assert from "node:assert/strict";
import { type Recipe, type RecipeInput, recipeSchema } from "../../models/recipe.ts";
import type { Shape2 } from "../../kernels/layout.ts";
import { type LayerBudget, layerBudget } from "../budget.ts";
import { type Matrix, matrix, subtract } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { entryChoice } from "../select.ts";
import type { Decomposition } from "./method.ts";
import { METHODS } from "./mod.ts";

export interface TestLayer {
  readonly W: Matrix;
  readonly d: Float32Array<ArrayBuffer>;
  readonly H: Float32Array<ArrayBuffer>;
}

/** Weights with a decaying spectrum, as trained layers have, plus noise; correlated inputs, a few of them large. */
export function testLayer([dOut, dIn]: Shape2, seed: number): TestLayer {
  const random = seededRandom(seed);
  const W = matrix(dOut, dIn);
  const rank = Math.min(dOut, dIn);
  for (let k = 0; k < rank; k++) {
    const u = Array.from({ length: dOut }, () => random.normal()),
      v = Array.from({ length: dIn }, () => random.normal());
    const size = 1 / (1 + k);
    for (let i = 0; i < dOut; i++) for (let j = 0; j < dIn; j++) W.data[i * dIn + j] += size * u[i] * v[j];
  }
  for (let i = 0; i < W.data.length; i++) W.data[i] += 0.3 * random.normal() ** 3;
  const sizes = Array.from({ length: dIn }, () => Math.exp(random.normal()));
  const tokens = Array.from({ length: 2 * dIn }, () => {
    const shared = random.normal();
    return sizes.map((size) => size * (random.normal() + shared));
  });
  return { W, ...momentsOf(tokens) };
}

/** H = X'X / tokens, and its diagonal's root. */
export function momentsOf(X: readonly (readonly number[])[]): Pick<TestLayer, "d" | "H"> {
  const n = X[0].length, H = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) H[i * n + j] = X.reduce((sum, x) => sum + x[i] * x[j], 0) / X.length;
  }
  return { H, d: Float32Array.from({ length: n }, (_, i) => Math.sqrt(H[i * n + i])) };
}

/** Makes columns dead. */
export function killColumns({ d, H }: TestLayer, columns: readonly number[]): void {
  const n = d.length;
  for (const j of columns) {
    d[j] = 0;
    for (let i = 0; i < n; i++) H[i * n + j] = H[j * n + i] = 0;
  }
}

/** The budget a recipe gives a layer. */
export function budgetOf({ W }: TestLayer, recipe: Recipe): LayerBudget {
  const rankRatio = METHODS[recipe.method as keyof typeof METHODS].rankRatio(recipe);
  return layerBudget([W.rows, W.cols], recipe.rate, { rankRatio, pattern: recipe.pattern });
}

export interface Outcome extends Decomposition {
  /** S + U V */
  readonly R: Matrix;
  readonly parameters: number;
  readonly budget: LayerBudget;
}

/** Compresses one layer; S stays inside the mask. */
export async function outcome(layer: TestLayer, fields: RecipeInput): Promise<Outcome> {
  const recipe = recipeSchema.parse(fields);
  const linalg = await LinalgRuntime.create();
  try {
    const method = METHODS[recipe.method as keyof typeof METHODS];
    const budget = budgetOf(layer, recipe);
    const H = method.needs(recipe) === "moments" ? layer.H : null;
    const prepared = await method.prepare({ d: layer.d, H }, { recipe, linalg });
    const choice = entryChoice(budget, { dIn: layer.W.cols, blockChunks: 2 });
    const found = await prepared.compress({ W: layer.W }, { budget, choice });
    const { S, U, V, mask } = found;
    S.data.forEach((x, at) => assert.ok(x === 0 || mask[at]));
    const R = await linalg.multiply(U, V);
    for (let i = 0; i < mask.length; i++) R.data[i] += S.data[i];
    const kept = mask.reduce((n, m) => n + m, 0);
    return { ...found, R, parameters: kept + U.data.length + V.data.length, budget };
  } finally {
    await linalg.close();
  }
}

/** tr(E M E') / tr(W M W') with E = W - R, in f64. */
export function relativeError(W: Matrix, R: Matrix, M: ArrayLike<number>): number {
  return quadratic(subtract(W, R), M) / quadratic(W, M);
}

export function quadratic({ rows, cols, data }: Matrix, M: ArrayLike<number>): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < cols; i++) {
      const x = data[r * cols + i];
      if (x === 0) continue;
      let dot = 0;
      for (let j = 0; j < cols; j++) dot += M[i * cols + j] * data[r * cols + j];
      sum += x * dot;
    }
  }
  return sum;
}

/** diag(d²) `[dIn, dIn]` */
export function squares(d: Float32Array): Float64Array {
  const n = d.length, M = new Float64Array(n * n);
  d.forEach((x, i) => M[i * n + i] = x * x);
  return M;
}
