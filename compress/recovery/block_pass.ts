/** One trained block in a worker: forward, and back with its gradients added to where they are summed. */
import { blockGraph, blockWeights } from "../forward/block_graph.ts";
import { positionInputs } from "../forward/block_inputs.ts";
import { blockGradientGraph } from "../gradients/block_gradient.ts";
import type { InputTensor, Tensor } from "../linalg/runtime.ts";
import { linearShapes, type ModelSpec } from "../../models/spec.ts";
import type { BlockParameters, SharedFloats } from "./parameters.ts";
import { add, addLayerGradient, type LayerContext, materialise } from "./layer_gradient.ts";

/** Tokens that go through a block together: more take memory, fewer cost a copy of the weights each. */
export const CHUNK_TOKENS = 1024;

/** Of sequences that went through a worker. */
export interface SequenceLoss {
  /** Over all tokens. */
  readonly loss: number;
  readonly forwardMs: number;
  readonly gradientMs: number;
}

/** Sequences of one length that go through together. */
export interface Rows {
  readonly sequences: number;
  readonly length: number;
}

export class BlockPass {
  readonly #weights: Readonly<Record<string, Tensor>>;
  readonly #key: string;

  private constructor(
    /** As this block sees it. */
    readonly spec: ModelSpec,
    readonly parameters: BlockParameters,
    readonly context: LayerContext,
    weights: Record<string, Tensor>,
  ) {
    this.#weights = weights;
    this.#key = `${Object.keys(weights)} ${parameters.layers.map(({ name }) => name)} ${
      JSON.stringify(spec)
    }`;
  }

  /** With the weights as they are now; there is one at a time in a worker, since they share buffers. */
  static async open(spec: ModelSpec, parameters: BlockParameters, context: LayerContext): Promise<BlockPass> {
    const { layers, norms, fixed } = parameters, { buffers } = context;
    const weights: Record<string, Tensor> = {};
    for (const layer of layers) {
      weights[layer.name] = buffers.tensor(`W.${layer.name}`, layer.shape);
      await materialise(layer, weights[layer.name], context);
    }
    for (const [name, values] of Object.entries(norms)) weights[name] = buffers.copy(`W.${name}`, values);
    for (const [name, { data, shape }] of Object.entries(fixed)) {
      weights[name] = buffers.copy(`W.${name}`, data, shape);
    }
    return new BlockPass(spec, parameters, context, weights);
  }

  /** Fills y like x, `[sequences x length, hidden]`. */
  async forward(x: Tensor, y: Tensor, rows: Rows): Promise<void> {
    const { linalg } = this.context;
    await linalg.run(
      `trained block ${rows.sequences} x ${rows.length} ${this.#key}`,
      () => blockGraph(this.#graphOptions(rows)),
      this.#inputs(x, rows),
      { y },
    );
  }

  /**
   * Adds the gradients of all that is trained to `sums`, an array like {@linkcode BlockParameters.values} or, when S is not
   * trained, its beginning.
   *
   * @param dy gradient of the loss by the output, like x
   * @param dx filled with that by the input; null: nobody needs it
   */
  async backward(
    { x, dy, dx }: { readonly x: Tensor; readonly dy: Tensor; readonly dx: Tensor | null },
    sums: SharedFloats,
    rows: Rows,
  ): Promise<void> {
    const { linalg, buffers } = this.context, { layers, norms } = this.parameters;
    const wanted = [...layers.map(({ name }) => name), ...Object.keys(norms)];
    const gradients = Object.fromEntries(
      wanted.map((name) => [`d.${name}`, buffers.tensor(`d.${name}`, this.#weights[name].shape)]),
    );
    await linalg.run(
      `trained block's gradient ${rows.sequences} x ${rows.length} ${dx !== null} ${this.#key}`,
      () => blockGradientGraph({ ...this.#graphOptions(rows), wanted, inputGradient: dx !== null }),
      { ...this.#inputs(x, rows), dy },
      dx ? { dx, ...gradients } : gradients,
    );
    await this.#addGradients(gradients, sums);
  }

  async #addGradients(gradients: Readonly<Record<string, Tensor>>, sums: SharedFloats): Promise<void> {
    const { layers, norms, values } = this.parameters;
    const place = (part: SharedFloats): SharedFloats => {
      const at = (part.byteOffset - values.byteOffset) / Float32Array.BYTES_PER_ELEMENT;
      return sums.subarray(at, at + part.length);
    };
    for (const [name, part] of Object.entries(norms)) add(place(part), gradients[`d.${name}`].data);
    for (const layer of layers) {
      const to = { U: place(layer.U), V: place(layer.V), kept: place(layer.kept.values) };
      await addLayerGradient(layer, gradients[`d.${layer.name}`], to, this.context);
    }
  }

  #graphOptions({ sequences, length }: Rows) {
    const weights = blockWeights(this.spec, (name) => name in this.#weights);
    return { spec: this.spec, weights, sequences, length, collect: "nothing" } as const;
  }

  #inputs(x: Tensor, { length }: Rows): Record<string, InputTensor> {
    return { x, ...positionInputs(this.spec, length), ...this.#weights };
  }
}

/** About what a block's gradient takes, over a chunk of sequences: W, dW, and what stands between its operators. */
export function passBytes(spec: ModelSpec, length: number): number {
  const { hiddenSize, mlp, attention } = spec;
  const weights = Object.values(linearShapes(spec)).reduce((sum, [dOut, dIn]) => sum + dOut * dIn, 0);
  const width = 12 * hiddenSize + 8 * mlp.intermediateSize + 3 * attention.heads * length;
  return 4 * (2 * weights + Math.max(length, CHUNK_TOKENS) * width);
}
