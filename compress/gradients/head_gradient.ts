/**
 * The loss of distillation on logits and its gradient: both models' hidden states go through their final norms and the head,
 * which is not trained, and KL(teacher || student) comes out, summed over the tokens.
 */
import { capped, normalise } from "../forward/block_graph.ts";
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import { hasFinalNorm, type ModelSpec } from "../../models/spec.ts";
import { derive } from "./derive.ts";
import { gradientOf } from "./block_gradient.ts";

export interface HeadGradientOptions {
  readonly spec: ModelSpec;
  /** Tokens of one call. Logits of both models are held at once, with two values like them: 16 bytes x vocabulary each. */
  readonly tokens: number;
  /** Rows of the head; default: the spec's vocabulary. */
  readonly vocabulary?: number;
  /** Whether the final norm has a bias (`finalNorm.bias`): LayerNorm mostly has. */
  readonly bias?: boolean;
  /** Whether the final norm is trained. */
  readonly normGradient: boolean;
  /** Whether `dx` is an output; false: the loss alone, without any backward pass (with `normGradient` false too). */
  readonly inputGradient: boolean;
}

/** Weights of the teacher's final norm stand beside the student's under this prefix. */
export const TEACHER = "teacher.";

/**
 * Inputs: `x` [tokens, hidden] (student, the last block's output), `t` [tokens, hidden] (teacher, the same), `head`
 * [vocabulary, hidden]; where the model has a final norm `finalNorm` and `teacher.finalNorm` [hidden], with a bias also
 * `finalNorm.bias` and `teacher.finalNorm.bias` [hidden]. The spec's soft cap on logits is applied to both.
 * Outputs: `kl` [tokens], KL(teacher || student) of each token in nats; and of their sum (not the mean) the gradients `dx`
 * like x (with `inputGradient`), `d.finalNorm` and, if there is one, `d.finalNorm.bias` [hidden] (with `normGradient`).
 */
export function headGradientGraph(options: HeadGradientOptions): OnnxGraph {
  const { spec, tokens, vocabulary = spec.vocabSize, bias = false, normGradient, inputGradient } = options;
  const g = new OnnxGraph(), { hiddenSize } = spec, norm = hasFinalNorm(spec);
  const rows = [tokens, hiddenSize], x = g.input("x", rows), t = g.input("t", rows);
  const head = g.input("head", [vocabulary, hiddenSize]);
  const names = !norm ? [] : bias ? ["finalNorm", "finalNorm.bias"] : ["finalNorm"];
  const weights = Object.fromEntries(names.map((name) => [name, [hiddenSize]]));
  const logits = (hidden: string, prefix: string) => {
    for (const name of names) g.input(prefix + name, [hiddenSize]);
    const normed = norm ? normalise(g, hidden, "finalNorm", { spec, weights, prefix }) : hidden;
    return capped(g, g.node("Gemm", [normed, head], { transB: { int: 1 } }), spec.logitsSoftCap);
  };
  const student = logits(x, ""), teacher = logits(t, TEACHER);
  const wanted = [...inputGradient ? ["x"] : [], ...normGradient ? names : []];
  const { kl, gradient } = divergence(g, student, teacher);
  const found = derive(g, { seeds: new Map([[student, gradient]]), wanted });
  g.output("kl", kl);
  for (const [name, value] of found) g.output(name === "x" ? "dx" : gradientOf(name), value);
  return g.prune();
}

/**
 * KL(p || q) = sum of p (log p - log q) of each row of logits, and of its sum the gradient at the student's logits: q - p.
 * @returns values [tokens] and like the logits
 */
function divergence(
  g: OnnxGraph,
  student: string,
  teacher: string,
): { readonly kl: string; readonly gradient: string } {
  const last = { axis: { int: -1 } };
  const logQ = g.node("LogSoftmax", [student], last), logP = g.node("LogSoftmax", [teacher], last);
  const p = g.node("Exp", [logP]), q = g.node("Exp", [logQ]);
  const terms = g.node("Mul", [p, g.node("Sub", [logP, logQ])]);
  return {
    kl: g.node("ReduceSum", [terms, g.integers([1])], { keepdims: { int: 0 } }),
    gradient: g.node("Sub", [q, p]),
  };
}
