/**
 * The gradient of one block as a graph: it runs the block again (nothing is kept from the forward pass) and sweeps back
 * through it. Whatever block_graph.ts can express has a gradient; a new family needs nothing here.
 */
import { blockGraph, type BlockGraphOptions } from "../forward/block_graph.ts";
import type { OnnxGraph } from "../linalg/onnx_graph.ts";
import { derive } from "./derive.ts";
import { linearProducts, readKept } from "./kept_products.ts";

export interface BlockGradientOptions
  extends Pick<BlockGraphOptions, "spec" | "weights" | "sequences" | "length"> {
  /** Names of `weights` (linear layers, norms, biases, the router) whose gradients are outputs; others cost nothing. */
  readonly wanted: readonly string[];
  /** Whether `dx` is an output: the first of the trained blocks needs none. */
  readonly inputGradient: boolean;
  /** Whether the block's output `y` is one as well; default false. */
  readonly output?: boolean;
  /**
   * Whether products of linear layers are inputs (kept_products.ts), as the forward pass had them, instead of being computed
   * again: three quarters of what is done twice. Default false.
   */
  readonly keptProducts?: boolean;
}

/** The name of a weight's gradient among the outputs. */
export const gradientOf = (weight: string): string => `d.${weight}`;

/**
 * Inputs: those of `blockGraph({ spec, weights, sequences, length, collect: "nothing" })` — `x` [sequences x length, hidden],
 * the weights, in a decoder `mask` [length, length], with rope `cos` and `sin` [length, 1, dims / 2] — and `dy`, the loss's
 * gradient at the block's output, like x.
 * Outputs: `dx` like x (with `inputGradient`); `d.NAME` in the shape of each wanted weight, summed over all tokens; `y`
 * like x (with `output`). All are f32, to be run by `LinalgRuntime.run` with outputs of these shapes.
 * @throws {RangeError} when nothing is wanted, or a name that is no weight
 */
export function blockGradientGraph(options: BlockGradientOptions): OnnxGraph {
  const { spec, weights, sequences, length, wanted, inputGradient, output = false } = options;
  const unknown = wanted.find((name) => !(name in weights));
  if (unknown !== undefined) throw new RangeError(`The block has no weight "${unknown}"`);
  const g = blockGraph({ spec, weights, sequences, length, collect: "nothing" });
  const products = options.keptProducts ? linearProducts(g, weights) : null;
  const dy = g.input("dy", [sequences * length, spec.hiddenSize]);
  const found = derive(g, {
    seeds: new Map([["y", dy]]),
    wanted: inputGradient ? ["x", ...wanted] : wanted,
    sizes: { length },
  });
  if (!output) g.withdraw("y");
  for (const [name, value] of found) g.output(name === "x" ? "dx" : gradientOf(name), value);
  g.prune();
  if (products) readKept(g, products, sequences * length);
  return g.prune();
}
