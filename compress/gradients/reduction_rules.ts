/** Gradients of sums and means: the same for everything that was summed, left to be repeated where it is read. */
import { reducedAxes } from "./shapes.ts";
import type { Rule } from "./derive.ts";

const reduce = (mean: boolean): Rule => (node, { g, give }, dy) => {
  const [x] = node.inputs, shape = g.shape(x), axes = reducedAxes(node, g);
  const kept = shape.map((d, i) => axes.includes(i) ? 1 : d);
  const value = g.reshape(g.expandLike(dy.value, node.outputs[0]), kept);
  if (!mean) return give(x, value);
  const count = axes.reduce((n, axis) => n * Number(shape[axis]), 1);
  give(x, g.mul(value, g.scalar(1 / count)));
};

export const REDUCTION_RULES: Readonly<Record<string, Rule>> = {
  ReduceSum: reduce(false),
  ReduceMean: reduce(true),
};
