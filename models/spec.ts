/**
 * What a model is, as data: families (models/families/) turn a checkpoint's config into a {@linkcode ModelSpec};
 * the plan builder, the calibration forward and the tests read nothing else.
 */

/** Rotary position embedding with all scaling rules already applied to the frequencies. */
export interface RopeSpec {
  /** Rotated dimensions of each head (even, <= headDim). */
  readonly dims: number;
  /** `[dims / 2]` radians per position; pair i is (i, i + dims / 2), the "rotate half" order. */
  readonly inverseFrequencies: readonly number[];
  /** cos and sin are multiplied by this (yarn, longrope; otherwise 1). */
  readonly attentionFactor: number;
}

export interface NormSpec {
  readonly kind: "rmsnorm" | "layernorm";
  readonly eps: number;
}

export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu";

export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** A token sees itself and what stands before it (decoders); false: the whole input (encoders, which have no head). */
  readonly causal: boolean;
  /** Scores are q·k x scale. */
  readonly scale: number;
  /** A token sees itself and the window - 1 before it; null = all. */
  readonly window: number | null;
  readonly rope: RopeSpec | null;
}

export interface MlpSpec {
  readonly intermediateSize: number;
  readonly activation: Activation;
  /** true: activation(gate x) * (up x); false: activation(up x). */
  readonly gated: boolean;
}

/** Linear layers of a block, in execution order. */
export const LINEAR_NAMES = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type LinearName = typeof LINEAR_NAMES[number];
/** The input each layer reads: layers with one input share its activation scales. */
export type InputName = "attn" | "o" | "mlp" | "down";
export const LINEAR_INPUT: Readonly<Record<LinearName, InputName>> = {
  q: "attn",
  k: "attn",
  v: "attn",
  o: "o",
  gate: "mlp",
  up: "mlp",
  down: "down",
};

/** What structured pruning takes from blocks, each as much as it can spare. */
export interface BlockSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly intermediateSize: number;
}

export interface ModelSpec {
  readonly family: string;
  readonly architecture: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly blocks: number;
  readonly contextLength: number;
  readonly norm: NormSpec;
  readonly attention: AttentionSpec;
  readonly mlp: MlpSpec;
  /** By block, where blocks differ from what `attention` and `mlp` say: read through {@linkcode blockSpec}. */
  readonly blockSizes?: readonly BlockSizes[];
  /** lm_head is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** Which linear layers of a block carry a bias. */
  readonly biases: readonly LinearName[];
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
}

/** What a text begins with: BOS, or the end token of models without BOS (they were trained to begin after it). */
export const startToken = ({ bosId, eosIds }: Pick<ModelSpec, "bosId" | "eosIds">): number =>
  bosId ?? eosIds[0] ?? 0;

/** The model as one of its blocks sees it: with the block's own heads, KV heads and intermediate size. */
export function blockSpec(spec: ModelSpec, block: number): ModelSpec {
  const { blockSizes, ...all } = spec;
  if (!blockSizes) return spec;
  const { heads, kvHeads, intermediateSize } = blockSizes[block];
  return {
    ...all,
    attention: { ...spec.attention, heads, kvHeads },
    mlp: { ...spec.mlp, intermediateSize },
  };
}

/** {@linkcode blockSpec} of every block, in order. */
export const blockSpecs = (spec: ModelSpec): ModelSpec[] =>
  Array.from({ length: spec.blocks }, (_, block) => blockSpec(spec, block));

/** `[dOut, dIn]` of each linear layer of a block (of all, when blocks do not differ), in execution order. */
export function linearShapes(
  spec: ModelSpec,
): Record<string, readonly [number, number]> & Partial<Record<LinearName, readonly [number, number]>> {
  const { heads, kvHeads, headDim } = spec.attention;
  const d = spec.hiddenSize, f = spec.mlp.intermediateSize;
  return {
    q: [heads * headDim, d],
    k: [kvHeads * headDim, d],
    v: [kvHeads * headDim, d],
    o: [d, heads * headDim],
    ...(spec.mlp.gated ? { gate: [f, d] as const } : {}),
    up: [f, d],
    down: [d, f],
  };
}
