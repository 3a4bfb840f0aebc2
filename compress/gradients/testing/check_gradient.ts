/** Gradients of a graph against central differences of the same graph, both in f64. Test support only. */
import assert from "node:assert/strict";
import type { OnnxGraph } from "../../linalg/onnx_graph.ts";
import { seededRandom } from "../../random.ts";
import { interpret, type Values } from "./interpreter.ts";

/** Of the differences: the error of a step is the third derivative x STEP² and rounding, 1e-16 / STEP. */
const STEP = 1e-5;
/** ||difference - gradient . direction|| in parts of their size; right rules stay below 1e-8. */
const TOLERANCE = 1e-6;

export interface GradientCheck {
  readonly forward: OnnxGraph;
  /** The output of `forward` whose product with `weights` is the loss. */
  readonly output: string;
  readonly weights: Values;
  readonly inputs: Readonly<Record<string, Values>>;
  /** By input: its gradient. */
  readonly gradients: Readonly<Record<string, Values>>;
  readonly seed?: number;
}

/** Every gradient along a random direction, in which each entry has its part. */
export function checkGradient(check: GradientCheck): void {
  const { inputs, gradients, seed = 1 } = check, random = seededRandom(seed);
  for (const [name, gradient] of Object.entries(gradients)) {
    const x = inputs[name];
    assert.deepEqual([...gradient.shape], [...x.shape], name);
    const direction = x.data.map(() => random.normal());
    const found = gradient.data.reduce((sum, v, i) => sum + v * direction[i], 0);
    const wanted = (loss(check, name, direction, STEP) - loss(check, name, direction, -STEP)) / (2 * STEP);
    const size = Math.max(Math.hypot(...gradient.data), Math.abs(wanted), 1e-3);
    assert.ok(
      Math.abs(found - wanted) <= TOLERANCE * size,
      `${name}: ${found}, differences ${wanted} (${size})`,
    );
  }
}

function loss(
  { forward, output, weights, inputs }: GradientCheck,
  name: string,
  direction: Float64Array,
  step: number,
): number {
  const { data, shape } = inputs[name];
  const moved = { data: data.map((v, i) => v + step * direction[i]), shape };
  const y = interpret(forward, { ...inputs, [name]: moved })[output].data;
  return y.reduce((sum, v, i) => sum + v * weights.data[i], 0);
}
