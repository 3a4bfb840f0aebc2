/** Gradients of operators that move entries: what was moved there comes back. */
import { axisOf, int, ints, sameShape, sliceOf } from "./shapes.ts";
import type { Rule } from "./derive.ts";

const reshape: Rule = ({ inputs: [x], outputs: [y] }, { g, give }, dy) => {
  const { rowDots } = dy, shape = g.shape(x);
  const value = g.reshape(g.expandLike(dy.value, y), shape);
  const sameRows = rowDots && sameShape(shape.slice(-1), g.shape(y).slice(-1));
  give(x, {
    kind: "value",
    value,
    ...sameRows ? { rowDots: () => g.reshape(rowDots(), [...shape.slice(0, -1), 1]) } : {},
  });
};

const transpose: Rule = ({ inputs: [x], outputs: [y], attributes }, { g, give }, dy) => {
  const perm = ints(attributes.perm), back = perm.map((_, axis) => perm.indexOf(axis));
  give(x, g.node("Transpose", [g.expandLike(dy.value, y)], { perm: { ints: back } }));
};

const slice: Rule = (node, { g, give }, dy) => {
  const value = g.expandLike(dy.value, node.outputs[0]);
  give(node.inputs[0], { kind: "slice", value, ...sliceOf(node, g) });
};

const concat: Rule = ({ inputs, outputs: [y], attributes }, { g, needs, give }, dy) => {
  const axis = axisOf(int(attributes.axis, 0), g.shape(y)), d = g.expandLike(dy.value, y);
  let from = 0;
  for (const input of inputs) {
    const to = from + Number(g.shape(input)[axis]);
    if (needs(input)) give(input, g.slice(d, axis, from, to));
    from = to;
  }
};

const expand: Rule = ({ inputs: [x], outputs: [y] }, { g, give }, dy) =>
  give(x, g.unbroadcast(dy.value, g.shape(x), y));

export const LAYOUT_RULES: Readonly<Record<string, Rule>> = {
  Reshape: reshape,
  Transpose: transpose,
  Slice: slice,
  Concat: concat,
  Expand: expand,
};
