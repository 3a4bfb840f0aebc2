/**
 * A mixture of experts in a block's graph: every expert computes the rows that chose it and no others, so their number is
 * the graph's to find.
 */
import type { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { ExpertsSpec } from "../../models/spec.ts";

/** Output `[experts]`: how many rows chose each. */
export const EXPERT_TOKENS = "experts.tokens";

const TYPE_F32 = 1;

export interface ExpertsOptions {
  readonly experts: ExpertsSpec;
  /** Name of the input `[experts, hidden]`. */
  readonly router: string;
  /** Adds the MLP of an expert over rows of x `[any, hidden]`; answers rows like them. */
  readonly mlp: (expert: number, rows: string) => string;
}

/**
 * The sum over experts of share x MLP, `[tokens, hidden]` as x; shares are softmax(router x) of the best, divided by their sum.
 * @returns names of the sum and of the rows that chose each expert, to be output as {@linkcode EXPERT_TOKENS}
 */
export function addExperts(
  g: OnnxGraph,
  x: string,
  { experts: { count, perToken }, router, mlp }: ExpertsOptions,
): { readonly sum: string; readonly tokens: string } {
  const sumOf = (values: string) => g.node("ReduceSum", [values, g.integers([1])], { keepdims: { int: 0 } });
  const reshape = (value: string, ...to: number[]) => g.node("Reshape", [value, g.integers(to)]);
  const scores = g.node("Gemm", [x, router], { transB: { int: 1 } });
  const [best, chosen] = g.nodes("TopK", [scores, g.integers([perToken])], {}, 2);
  const shares = g.node("Softmax", [best], { axis: { int: -1 } }); // of the best alone: their sum is 1
  const zeros = g.node("Expand", [g.scalar(0), g.node("Shape", [x])]);
  let sum = zeros;
  const counts: string[] = [];
  for (let expert = 0; expert < count; expert++) {
    const isIt = g.node("Cast", [g.node("Equal", [chosen, g.integers([expert])])], { to: { int: TYPE_F32 } });
    const hits = sumOf(isIt), share = sumOf(g.node("Mul", [isIt, shares])); // [tokens]
    counts.push(g.node("ReduceSum", [hits]));
    const rows = reshape(g.node("NonZero", [hits]), -1);
    const gather = (values: string) => g.node("Gather", [values, rows], { axis: { int: 0 } });
    const added = g.node("Mul", [mlp(expert, gather(x)), reshape(gather(share), -1, 1)]);
    sum = g.node("Add", [sum, g.node("ScatterND", [zeros, reshape(rows, -1, 1), added])]);
  }
  return { sum, tokens: reshape(g.node("Concat", counts, { axis: { int: 0 } }), count) };
}
