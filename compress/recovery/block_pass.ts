/** One trained block in a worker: forward, and back with its gradients added to where they are summed. */
import { blockGraph, blockWeights } from "../forward/block_graph.ts";
import { positionInputs } from "../forward/block_inputs.ts";
import { blockGradientGraph, gradientOf } from "../gradients/block_gradient.ts";
import { keptLayers, keptOf, outputKept } from "../gradients/kept_products.ts";
import type { OnnxGraph } from "../linalg/onnx_graph.ts";
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

/** What the way back reads besides the block's input, by the names of its graph's inputs. */
export type KeptProducts = Readonly<Record<string, Tensor>>;

/** By kind of block. */
const KEPT_LAYERS = new Map<string, readonly string[]>();

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

  /**
   * Fills y like x, `[sequences x length, hidden]`.
   * @param keepAs names what the way back will read; null: there is none
   */
  async forward(x: Tensor, y: Tensor, rows: Rows, keepAs: string | null = null): Promise<KeptProducts> {
    const { linalg, buffers } = this.context, options = this.#graphOptions(rows), tokens = x.shape[0];
    const layers = keepAs === null ? [] : this.#kept(rows);
    const kept = Object.fromEntries(layers.map((layer) => {
      const shape = [tokens, this.#weights[layer].shape[0]];
      return [keptOf(layer), buffers.tensor(`${keepAs}.${layer}`, shape)];
    }));
    await linalg.run(
      `trained block ${keepAs !== null} ${rows.sequences} x ${rows.length} ${this.#key}`,
      () => outputKept(blockGraph(options), layers, options.weights),
      this.#inputs(x, rows),
      { y, ...kept },
    );
    return kept;
  }

  /**
   * Adds the gradients of all that is trained to `sums`, an array like {@linkcode BlockParameters.values} or, when S is not
   * trained, its beginning.
   *
   * @param kept of the forward pass over x
   * @param dy gradient of the loss by the output, like x
   * @param dx filled with that by the input; null: nobody needs it
   */
  async backward(
    { x, kept, dy, dx }: {
      readonly x: Tensor;
      readonly kept: KeptProducts;
      readonly dy: Tensor;
      readonly dx: Tensor | null;
    },
    sums: SharedFloats,
    rows: Rows,
  ): Promise<void> {
    const { linalg, buffers } = this.context;
    const gradients = Object.fromEntries(
      this.#trained.map((name) => [
        gradientOf(name),
        buffers.tensor(gradientOf(name), this.#weights[name].shape),
      ]),
    );
    await linalg.run(
      `trained block's gradient ${rows.sequences} x ${rows.length} ${dx !== null} ${this.#key}`,
      () => this.#gradientGraph(rows, dx !== null),
      { ...this.#inputs(x, rows), ...kept, dy },
      dx ? { dx, ...gradients } : gradients,
    );
    await this.#addGradients(gradients, sums);
  }

  get #trained(): string[] {
    const { layers, norms } = this.parameters;
    return [...layers.map(({ name }) => name), ...Object.keys(norms)];
  }

  #gradientGraph(rows: Rows, inputGradient: boolean): OnnxGraph {
    const wanted = this.#trained;
    return blockGradientGraph({ ...this.#graphOptions(rows), wanted, inputGradient, keptProducts: true });
  }

  /** Layers whose products the way back reads: known from its graph, once. */
  #kept(rows: Rows): readonly string[] {
    const known = KEPT_LAYERS.get(this.#key) ?? keptLayers(this.#gradientGraph(rows, true));
    KEPT_LAYERS.set(this.#key, known);
    return known;
  }

  async #addGradients(gradients: Readonly<Record<string, Tensor>>, sums: SharedFloats): Promise<void> {
    const { layers, norms, values } = this.parameters;
    const place = (part: SharedFloats): SharedFloats => {
      const at = (part.byteOffset - values.byteOffset) / Float32Array.BYTES_PER_ELEMENT;
      return sums.subarray(at, at + part.length);
    };
    for (const [name, part] of Object.entries(norms)) add(place(part), gradients[gradientOf(name)].data);
    for (const layer of layers) {
      const to = { U: place(layer.U), V: place(layer.V), kept: place(layer.kept.values) };
      await addLayerGradient(layer, gradients[gradientOf(layer.name)], to, this.context);
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

/** What is kept of a block for the way back, over a chunk of sequences: its input and products. */
export function keptBytes(spec: ModelSpec, length: number): number {
  const widths = Object.entries(linearShapes(spec)).reduce((sum, [, [dOut]]) => sum + dOut, spec.hiddenSize);
  return 4 * Math.max(length, CHUNK_TOKENS) * widths;
}

/** About what a block's gradient takes besides: W, dW, and what stands between its operators. */
export function passBytes(spec: ModelSpec, length: number): number {
  const { hiddenSize, mlp, attention } = spec;
  const weights = Object.values(linearShapes(spec)).reduce((sum, [dOut, dIn]) => sum + dOut * dIn, 0);
  const width = 12 * hiddenSize + 8 * mlp.intermediateSize + 3 * attention.heads * length;
  return 4 * (2 * weights + Math.max(length, CHUNK_TOKENS) * width);
}
