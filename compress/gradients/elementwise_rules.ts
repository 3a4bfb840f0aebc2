/** Gradients of operators that treat each entry by itself. */
import type { Rule, Sweep } from "./derive.ts";
import type { ShapedGraph } from "./shaped_graph.ts";

/** Gives an input of a broadcasting operator its gradient, in the shape of the output `y`. */
function giveSummed({ g, give }: Sweep, input: string, gradient: string, y: string): void {
  give(input, g.unbroadcast(gradient, g.shape(input), y));
}

/** A rule of one input: dx = f(dy, x, y). */
const unary = (dx: (g: ShapedGraph, dy: string, x: string, y: string) => string): Rule =>
(
  { inputs: [x], outputs: [y] },
  { g, give },
  dy,
) => give(x, dx(g, dy.value, x, y));

const add: Rule = ({ inputs, outputs: [y] }, sweep, dy) => {
  for (const input of inputs) if (sweep.needs(input)) giveSummed(sweep, input, dy.value, y);
};

const sub: Rule = ({ inputs: [a, b], outputs: [y] }, sweep, dy) => {
  if (sweep.needs(a)) giveSummed(sweep, a, dy.value, y);
  if (sweep.needs(b)) giveSummed(sweep, b, sweep.g.node("Neg", [dy.value]), y);
};

const mul: Rule = ({ inputs: [a, b], outputs: [y] }, sweep, dy) => {
  const { g, needs, give } = sweep;
  if (a === b) return give(a, g.mul(g.mul(dy.value, g.scalar(2)), a)); // the first product is small in a norm
  if (needs(a)) giveSummed(sweep, a, g.mul(dy.value, b), y);
  if (needs(b)) giveSummed(sweep, b, g.mul(dy.value, a), y);
};

/** y = a / b: db = -dy y / b, divided behind the sum, since b is the same along what is summed. */
const div: Rule = ({ inputs: [a, b], outputs: [y] }, sweep, dy) => {
  const { g, needs, give } = sweep;
  if (needs(a)) giveSummed(sweep, a, g.div(dy.value, b), y);
  if (needs(b)) give(b, g.div(g.node("Neg", [g.unbroadcast(g.mul(dy.value, y), g.shape(b), y)]), b));
};

export const ELEMENTWISE_RULES: Readonly<Record<string, Rule>> = {
  Add: add,
  Sub: sub,
  Mul: mul,
  Div: div,
  Identity: unary((_, dy) => dy),
  Neg: unary((g, dy) => g.node("Neg", [dy])),
  Sqrt: unary((g, dy, _, y) => g.div(g.mul(dy, g.scalar(0.5)), y)),
  Exp: unary((g, dy, _, y) => g.mul(dy, y)),
  Sigmoid: unary((g, dy, _, y) => g.mul(dy, g.mul(y, g.sub(g.scalar(1), y)))),
  Tanh: unary((g, dy, _, y) => g.mul(dy, g.sub(g.scalar(1), g.mul(y, y)))),
  /** The sign of max(x, 0) is 1 where x > 0, else 0. */
  Relu: unary((g, dy, _, y) => g.mul(dy, g.node("Sign", [y]))),
  /** erf'(x) = 2 / sqrt(pi) exp(-x²) */
  Erf: unary((g, dy, x) => {
    const bell = g.node("Exp", [g.node("Neg", [g.mul(x, x)])]);
    return g.mul(dy, g.mul(bell, g.scalar(2 / Math.sqrt(Math.PI))));
  }),
};
