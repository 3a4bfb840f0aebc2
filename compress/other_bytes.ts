/** What an artifact holds beside the linear layers of its blocks. */
import { packedBytes } from "../kernels/layout.ts";
import type { Recipe } from "../models/recipe.ts";
import { encoderTensors, entryBytes, POSITIONS_FORMAT, ROUTER_FORMAT } from "../models/pack_dense.ts";
import {
  blockNorms,
  hasFinalNorm,
  type LinearKind,
  linearKind,
  linearNames,
  linearShapes,
  type ModelSpec,
  type NormShape,
  normShape,
  readsTokens,
  routerShape,
} from "../models/spec.ts";
import { inputWidths } from "./forward/block_graph.ts";
import { denseFormat, denseValues, factorKind } from "./stored_parts.ts";

/** Bytes of a value in a vector (norm weights, biases, input scales). */
const VECTOR_BYTES = 4;

/** Bytes of the tensors that no allocation chooses: tables, norms, scales, biases, and the layers that stay dense by name. */
export function otherBytes(spec: ModelSpec, recipe: Recipe): number {
  const table = packedBytes({ kind: factorKind(recipe) }, [spec.vocabSize, spec.hiddenSize]);
  const shapes = linearShapes(spec), values = ({ length, bias }: NormShape) => length * (bias ? 2 : 1);
  const norms = Object.values(blockNorms(spec)).reduce((sum, shape) => sum + values(shape), 0);
  const finalNorm = hasFinalNorm(spec) ? values(normShape(spec)) : 0;
  const positions = spec.learnedPositions
    ? packedBytes(POSITIONS_FORMAT, [spec.contextLength, spec.hiddenSize])
    : 0;
  const scales = recipe.values === "f32" ? 0 : Object.values(inputWidths(spec)).reduce((a, b) => a + b, 0);
  const names = linearNames(spec), router = routerShape(spec);
  const ofKinds = (kinds: readonly LinearKind[]) => names.filter((name) => kinds.includes(linearKind(name)));
  const biases = names.filter((name) => (spec.biases as readonly string[]).includes(name))
    .reduce((sum, name) => sum + shapes[name]![0], 0);
  const dense = ofKinds(recipe.dense).reduce(
    (sum, name) => sum + packedBytes(denseFormat(denseValues(recipe)), shapes[name]!),
    router ? packedBytes(ROUTER_FORMAT, router) : 0,
  );
  const ends = encoderTensors(spec).reduce((sum, { format, shape }) => sum + entryBytes(format, shape), 0);
  const tables = readsTokens(spec) ? table * (spec.tiedEmbeddings ? 1 : 2) + positions : 0;
  return tables + ends + VECTOR_BYTES * finalNorm +
    spec.blocks * (VECTOR_BYTES * (norms + scales + biases) + dense);
}
