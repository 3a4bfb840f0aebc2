/** Gradients of operators that choose entries or rows, as a mixture of experts does: they go to what was chosen. */
import type { Rule } from "./derive.ts";
import { axisOf, int } from "./shapes.ts";

/** Of the best entries along an axis, which are all different ones. */
const topK: Rule = ({ inputs: [x], outputs: [, chosen], attributes }, { g, give }, dy) => {
  const axis = axisOf(int(attributes.axis, -1), g.shape(x)), d = g.expandLike(dy.value, chosen);
  give(x, g.node("ScatterElements", [g.zerosLike(x), chosen, d], { axis: { int: axis } }));
};

/** Rows that were read several times have the sum. */
const gather: Rule = ({ inputs: [x, rows], outputs: [y], attributes }, { g, give }, dy) => {
  if (axisOf(int(attributes.axis, 0), g.shape(x)) !== 0) {
    throw new RangeError("Gather has a gradient for axis 0");
  }
  const places = g.reshape(rows, [...g.shape(rows), 1]), d = g.expandLike(dy.value, y);
  give(x, g.node("ScatterND", [g.zerosLike(x), places, d], { reduction: { string: "add" } }));
};

/** Rows of x replaced by others: those have the gradient, x has it elsewhere. */
const scatter: Rule = ({ inputs: [x, places, rows], outputs: [y] }, { g, needs, give }, dy) => {
  const d = g.expandLike(dy.value, y);
  if (needs(x)) give(x, g.node("ScatterND", [d, places, g.zerosLike(rows)]));
  if (needs(rows)) give(rows, g.node("GatherND", [d, places]));
};

export const CHOICE_RULES: Readonly<Record<string, Rule>> = {
  TopK: topK,
  Gather: gather,
  ScatterND: scatter,
};
