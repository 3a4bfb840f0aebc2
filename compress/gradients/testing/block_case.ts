/** A block with random hidden states, ready for its gradient to be checked. Test support only. */
import type { Checkpoint } from "../../../models/checkpoint.ts";
import { blockSpec } from "../../../models/spec.ts";
import { blockGraph } from "../../forward/block_graph.ts";
import { positionInputs } from "../../forward/block_inputs.ts";
import { readBlock } from "../../forward/dense_forward.ts";
import { seededRandom } from "../../random.ts";
import { blockGradientGraph, gradientOf } from "../block_gradient.ts";
import type { GradientCheck } from "./check_gradient.ts";
import { interpret, type Values, values } from "./interpreter.ts";

/** How many rows there are, and which block they go through. */
export interface BlockRows {
  readonly sequences: number;
  readonly length: number;
  /** Default 0. */
  readonly block?: number;
}

/** What graphs of the block are made from, and their inputs, `dy` among them. */
export async function blockCase(checkpoint: Checkpoint, { sequences, length, block = 0 }: BlockRows) {
  const spec = blockSpec(checkpoint.spec, block), random = seededRandom(5), { hiddenSize } = spec;
  const read = await readBlock(checkpoint, block);
  const weights = Object.fromEntries(Object.entries(read).map(([name, { shape }]) => [name, shape]));
  const rows = sequences * length;
  const hidden = () =>
    values(Array.from({ length: rows * hiddenSize }, () => random.normal()), rows, hiddenSize);
  const inputs: Record<string, Values> = { x: hidden(), dy: hidden() };
  for (const [name, { data, shape }] of Object.entries({ ...read, ...positionInputs(spec, length) })) {
    inputs[name] = values(data, ...shape);
  }
  const options = { spec, weights, sequences, length };
  return { options, inputs, forward: blockGraph({ ...options, collect: "nothing" }) };
}

type BlockCase = Awaited<ReturnType<typeof blockCase>>;

/** The gradients of `wanted` (default: all weights) and of x as the graph says they are. */
export function blockCheck(
  { options, inputs, forward }: BlockCase,
  wanted = Object.keys(options.weights),
): GradientCheck {
  const found = interpret(blockGradientGraph({ ...options, wanted, inputGradient: true }), inputs);
  const gradients = Object.fromEntries(
    Object.entries(found).map(([name, gradient]) =>
      [name === "dx" ? "x" : name.slice(gradientOf("").length), gradient] as const
    ),
  );
  return { forward, output: "y", weights: inputs.dy, inputs, gradients };
}
