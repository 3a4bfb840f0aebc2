/** Divergence of next tokens from the dense model's, and its gradient, in a worker; some tokens at a time. */
import type { SharedTensor } from "../forward/block_job.ts";
import { gradientOf } from "../gradients/block_gradient.ts";
import { headGradientGraph, TEACHER } from "../gradients/head_gradient.ts";
import type { InputTensor, Tensor } from "../linalg/runtime.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { add, type LayerContext } from "./layer_gradient.ts";
import type { SharedFloats } from "./parameters.ts";

/** Of the norm behind the last block, `[hidden]` each. */
export interface NormWeights {
  readonly weight: SharedFloats;
  readonly bias?: SharedFloats;
}

export interface HeadParameters {
  /** `[vocab, hidden]` */
  readonly head: SharedTensor;
  /** Of the model that is trained and of the dense one; null: there is none. */
  readonly finalNorm: NormWeights | null;
  readonly denseNorm: NormWeights | null;
}

/** What of a final norm is trained, in the order in which its gradients stand. */
export const finalNormVectors = (norm: NormWeights | null): SharedFloats[] =>
  norm ? [norm.weight, ...norm.bias ? [norm.bias] : []] : [];

/** Logits of each model that are held at once, 32 MiB; there are about five such tensors. */
const CHUNK_LOGITS = 1 << 23;
const LOGIT_TENSORS = 5;

const tokensAtOnce = (vocabSize: number): number => Math.max(16, Math.floor(CHUNK_LOGITS / vocabSize));

/** About what a pass takes besides what threads share. */
export const headBytes = ({ vocabSize, hiddenSize }: ModelSpec): number =>
  4 * vocabSize * (hiddenSize + LOGIT_TENSORS * tokensAtOnce(vocabSize));

export class HeadPass {
  readonly #weights: Readonly<Record<string, InputTensor>>;

  constructor(readonly parameters: HeadParameters, readonly spec: ModelSpec, readonly context: LayerContext) {
    const { buffers } = context, { head, finalNorm, denseNorm } = parameters;
    const weights: Record<string, InputTensor> = { head: buffers.copy("head", head.data, head.shape) };
    for (const [prefix, norm] of [["", finalNorm], [TEACHER, denseNorm]] as const) {
      finalNormVectors(norm).forEach((values, i) => {
        const name = `${prefix}finalNorm${i > 0 ? ".bias" : ""}`;
        weights[name] = buffers.copy(`W.${name}`, values);
      });
    }
    this.#weights = weights;
  }

  /**
   * @param x last hidden states of the model, and `t` of the dense one, `[tokens, hidden]`
   * @param dx filled with the gradient of the summed loss, like x; null: the loss alone
   * @param sums where the final norm's gradients are added
   * @returns KL(dense || model), summed over the tokens, in nats
   */
  async run(
    { x, t, dx }: { readonly x: Tensor; readonly t: Tensor; readonly dx: Tensor | null },
    sums: readonly SharedFloats[],
  ): Promise<number> {
    const tokens = x.shape[0], pieces = Math.ceil(tokens / tokensAtOnce(this.spec.vocabSize));
    const size = Math.ceil(tokens / pieces);
    let loss = 0;
    for (let from = 0; from < tokens; from += size) {
      const rows = (whole: Tensor) => rowsOf(whole, from, Math.min(tokens, from + size));
      loss += await this.#piece({ x: rows(x), t: rows(t), dx: dx && rows(dx) }, sums);
    }
    return loss;
  }

  async #piece(
    { x, t, dx }: { readonly x: Tensor; readonly t: Tensor; readonly dx: Tensor | null },
    sums: readonly SharedFloats[],
  ): Promise<number> {
    const { spec, parameters: { finalNorm }, context: { linalg, buffers } } = this;
    const [tokens] = x.shape, train = dx !== null, bias = finalNorm?.bias !== undefined;
    const names = finalNormVectors(train ? finalNorm : null).map((_, i) =>
      `finalNorm${i > 0 ? ".bias" : ""}`
    );
    const gradients = names.map((name) => buffers.tensor(gradientOf(name), [spec.hiddenSize]));
    const kl = buffers.tensor("kl", [tokens]);
    await linalg.run(
      `distilled head ${tokens} ${train} ${bias} ${spec.logitsSoftCap} ${spec.norm.eps}`,
      () => headGradientGraph({ spec, tokens, bias, normGradient: names.length > 0, inputGradient: train }),
      { x, t, ...this.#weights },
      {
        kl,
        ...dx ? { dx } : {},
        ...Object.fromEntries(names.map((name, i) => [gradientOf(name), gradients[i]])),
      },
    );
    gradients.forEach(({ data }, i) => add(sums[i], data));
    return kl.data.reduce((sum, value) => sum + value, 0);
  }
}

/** Rows from..to-1 of a matrix, in its memory. */
const rowsOf = ({ data, shape: [, width] }: Tensor, from: number, to: number): Tensor => ({
  data: data.subarray(from * width, to * width),
  shape: [to - from, width],
});
