/**
 * Products of a block's linear layers that its gradient reads. Kept from the forward pass they cost memory (for SmolLM2-135M
 * 10 MB for 512 tokens of a block) and save most of the recomputation; what is cheap, norms, rotations, attention's
 * weights and activations, is computed again.
 */
import type { OnnxGraph } from "../linalg/onnx_graph.ts";

interface Product {
  readonly layer: string;
  readonly value: string;
  readonly dOut: number;
}

const KEPT = "kept.";

/** The name of a layer's product among the inputs of a gradient and the outputs of a forward pass. */
export const keptOf = (layer: string): string => KEPT + layer;

/** Of the layers that read all tokens, in a forward graph: how many rows an expert has no shape says. */
export function linearProducts(
  g: OnnxGraph,
  weights: Readonly<Record<string, readonly number[]>>,
): Product[] {
  return g.steps.flatMap(({ op, inputs, outputs }) => {
    const layer = inputs[1], shape = weights[layer];
    const isLinear = op === "Gemm" && shape?.length === 2 && !layer.startsWith("experts.");
    return isLinear ? [{ layer, value: outputs[0], dOut: shape[0] }] : [];
  });
}

/** Makes those that the pruned graph still computes its inputs, `[tokens, dOut]`. */
export function readKept(g: OnnxGraph, products: readonly Product[], tokens: number): void {
  const computed = new Set(g.steps.flatMap(({ outputs }) => outputs));
  for (const { layer, value, dOut } of products) {
    if (computed.has(value)) g.replace(value, keptOf(layer), [tokens, dOut]);
  }
}

/** Layers whose products a gradient graph reads. */
export const keptLayers = (gradient: OnnxGraph): string[] =>
  [...gradient.inputs.keys()].filter((name) => name.startsWith(KEPT)).map((name) => name.slice(KEPT.length));

/** Makes the products of these layers outputs of a forward graph. */
export function outputKept(
  g: OnnxGraph,
  layers: readonly string[],
  weights: Readonly<Record<string, readonly number[]>>,
): OnnxGraph {
  for (const { layer, value } of linearProducts(g, weights)) {
    if (layers.includes(layer)) g.output(keptOf(layer), value);
  }
  return g;
}
