/** What an artifact holds beside the linear layers of its blocks. */
import { packedBytes } from "../kernels/layout.ts";
import type { Recipe } from "../models/recipe.ts";
import { linearShapes, type ModelSpec } from "../models/spec.ts";
import { inputWidths } from "./forward/block_graph.ts";
import { denseFormat, denseValues, factorKind } from "./stored_parts.ts";

/** Bytes of a value in a vector (norm weights, biases, input scales). */
const VECTOR_BYTES = 4;

/** Bytes of the tensors that no allocation chooses: tables, norms, scales, biases, and the layers that stay dense by name. */
export function otherBytes(spec: ModelSpec, recipe: Recipe): number {
  const table = packedBytes({ kind: factorKind(recipe) }, [spec.vocabSize, spec.hiddenSize]);
  const shapes = linearShapes(spec), norm = spec.hiddenSize * (spec.norm.kind === "layernorm" ? 2 : 1);
  const scales = recipe.values === "f32" ? 0 : Object.values(inputWidths(spec)).reduce((a, b) => a + b, 0);
  const biases = spec.biases.reduce((sum, name) => sum + shapes[name]![0], 0);
  const dense = recipe.dense.reduce(
    (sum, name) => sum + packedBytes(denseFormat(denseValues(recipe)), shapes[name]!),
    0,
  );
  return table * (spec.tiedEmbeddings ? 1 : 2) + VECTOR_BYTES * norm +
    spec.blocks * (VECTOR_BYTES * (2 * norm + scales + biases) + dense);
}
