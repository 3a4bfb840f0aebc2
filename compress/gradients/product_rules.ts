/** Gradients of matrix products. Turned sides are named to the product, so that no Transpose is written out. */
import type { Attribute } from "../linalg/onnx_graph.ts";
import type { Rule } from "./derive.ts";
import { int, sameShape } from "./shapes.ts";

const flag = (a: Attribute | undefined): boolean => int(a, 0) === 1;

/** y = A B + c with either side turned: dA = dy B', dB = A' dy; products into one matrix add up in Gemm's own sum. */
const gemm: Rule = ({ inputs: [a, b, c], outputs: [y], attributes }, { g, needs, give }, dy) => {
  const transA = flag(attributes.transA), transB = flag(attributes.transB);
  const d = g.expandLike(dy.value, y);
  if (needs(a)) {
    give(a, {
      kind: "product",
      addTo: (sum) => transA ? g.gemm(b, d, transB, true, sum) : g.gemm(d, b, false, !transB, sum),
    });
  }
  if (needs(b)) {
    give(b, {
      kind: "product",
      addTo: (sum) => transB ? g.gemm(d, a, true, transA, sum) : g.gemm(a, d, !transA, false, sum),
    });
  }
  if (c && needs(c)) give(c, g.unbroadcast(d, g.shape(c), y));
};

/** Of stacks of matrices; sum over j of dA_ij A_ij = (dy B')_ij A_ij is the sum of dy_ij y_ij, which is mostly smaller. */
const matmul: Rule = ({ inputs: [a, b], outputs: [y] }, { g, needs, give }, dy) => {
  const d = g.expandLike(dy.value, y);
  if (needs(a)) {
    const whole = g.matmul(d, b, { transB: true });
    const rowDots = sameShape(g.shape(whole), g.shape(a)) ? { rowDots: () => g.sum(g.mul(d, y), [-1]) } : {};
    give(a, { kind: "value", value: g.unbroadcast(whole, g.shape(a), whole), ...rowDots });
  }
  if (needs(b)) {
    const whole = g.matmul(a, d, { transA: true });
    give(b, g.unbroadcast(whole, g.shape(b), whole));
  }
};

export const PRODUCT_RULES: Readonly<Record<string, Rule>> = { Gemm: gemm, MatMul: matmul };
