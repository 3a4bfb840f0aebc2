/** Gradients of operators that treat each row (last axis) as a whole. */
import { axisOf, int } from "./shapes.ts";
import type { Rule } from "./derive.ts";

/** dx = y (dy - sum of dy y): the sum comes from the product that read y, where it does. */
const softmax: Rule = ({ inputs: [x], outputs: [y], attributes }, { g, give }, { value, rowDots }) => {
  const axis = axisOf(int(attributes.axis, -1), g.shape(y)), last = axis === g.shape(y).length - 1;
  const dots = rowDots && last ? rowDots() : g.sum(g.mul(value, y), [axis]);
  give(x, g.mul(g.sub(value, dots), y));
};

/**
 * y = n w + b with n = (x - mean) / deviation: dx = (dn - mean of dn - n mean of dn n) / deviation, dn = dy w. The
 * operator itself answers n and 1 / deviation when it is asked with ones for w.
 */
const layerNorm: Rule = ({ inputs: [x, w, b], outputs: [y], attributes }, sweep, dy) => {
  const { g, needs, give } = sweep, d = g.expandLike(dy.value, y), width = Number(g.shape(x).at(-1));
  const [n, , inverse] = g.nodes("LayerNormalization", [x, g.ones(width)], attributes, 3);
  if (b && needs(b)) give(b, g.unbroadcast(d, g.shape(b), y));
  if (needs(w)) give(w, g.unbroadcast(g.mul(d, n), g.shape(w), y));
  if (!needs(x)) return;
  const dn = g.mul(d, w), mean = (value: string) => g.mul(g.sum(value, [-1]), g.scalar(1 / width));
  const centred = g.sub(g.sub(dn, mean(dn)), g.mul(n, mean(g.mul(dn, n))));
  give(x, g.mul(centred, inverse));
};

export const ROW_RULES: Readonly<Record<string, Rule>> = { Softmax: softmax, LayerNormalization: layerNorm };
