/** Gradients of a graph against central differences of the same graph, both in f64. Test support only. */
import assert from "node:assert/strict";
import type { OnnxGraph } from "../../linalg/onnx_graph.ts";
import { seededRandom } from "../../random.ts";
import { interpret, type Values } from "./interpreter.ts";

/** Of the differences: their error is the third derivative x STEP² and rounding, 1e-16 / STEP. */
const STEP = 1e-5;
/** |difference - gradient . direction| in parts of the gradient's norm; right rules stay below 1e-8. */
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

type Directions = Readonly<Record<string, Float64Array>>;

/** For each gradient a random direction in which every entry has its part; the shorter the larger the gradient is above 1. */
function directionsOf({ gradients, inputs, seed = 1 }: GradientCheck): Directions {
  const random = seededRandom(seed);
  return Object.fromEntries(
    Object.entries(gradients).map(([name, { data, shape }]) => {
      assert.deepEqual([...shape], [...inputs[name].shape], name);
      const size = Math.max(1, Math.hypot(...data));
      return [name, data.map(() => random.normal() / size)];
    }),
  );
}

/** How far the gradients are from differences along all directions at once, and what they say the difference is. */
function compare(check: GradientCheck, directions: Directions): { found: number; wanted: number } {
  const found = Object.entries(directions).reduce(
    (sum, [name, direction]) =>
      sum + direction.reduce((part, v, i) => part + v * check.gradients[name].data[i], 0),
    0,
  );
  return { found, wanted: (loss(check, directions, STEP) - loss(check, directions, -STEP)) / (2 * STEP) };
}

/** Every gradient by itself. */
export function checkGradient(check: GradientCheck): void {
  for (const [name, direction] of Object.entries(directionsOf(check))) {
    const { found, wanted } = compare(check, { [name]: direction });
    const size = Math.max(1e-3, Math.min(1, Math.hypot(...check.gradients[name].data)));
    assert.ok(Math.abs(found - wanted) <= TOLERANCE * size, `${name}: ${found}, differences ${wanted}`);
  }
}

/** All gradients together, each with the same weight, by two runs of the graph. */
export function checkGradientsTogether(check: GradientCheck): void {
  const { found, wanted } = compare(check, directionsOf(check));
  assert.ok(Math.abs(found - wanted) <= TOLERANCE, `${found}, differences ${wanted}`);
}

function loss(
  { forward, output, weights, inputs }: GradientCheck,
  directions: Directions,
  step: number,
): number {
  const moved = Object.entries(directions).map(([name, direction]) => {
    const { data, shape } = inputs[name];
    return [name, { data: data.map((v, i) => v + step * direction[i]), shape }];
  });
  const y = interpret(forward, { ...inputs, ...Object.fromEntries(moved) })[output].data;
  return y.reduce((sum, v, i) => sum + v * weights.data[i], 0);
}
