/**
 * A LoRA adapter as the engine takes it: for some linear layers of a model a product B A that is added to the weight,
 * W' = W + B A, whatever file it came from (peft/). Rows and columns are in the model's own order.
 */

/** What is added to one linear layer. */
export interface LoraLayer {
  readonly rank: number;
  /** `[rank, dIn]`, row-major. */
  readonly A: Float32Array<ArrayBuffer>;
  /** `[dOut, rank]`, row-major; the adapter's scale (alpha / r, or alpha / √r of rank-stabilised ones) is multiplied in. */
  readonly B: Float32Array<ArrayBuffer>;
}

export interface LoraAdapter {
  /** By the layer's name, "block.3.q"; layers that are not named stay as they are. */
  readonly layers: ReadonlyMap<string, LoraLayer>;
}

/** Largest rank of a layer that is taken: PEFT's users train 4 to 256. */
export const MAX_LORA_RANK = 512;
