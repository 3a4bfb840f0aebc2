/**
 * What a model is, as data: families (models/families/) turn a checkpoint's config into a {@linkcode ModelSpec};
 * the plan builder, the calibration forward and the tests read nothing else.
 */

import type { EncoderSpec } from "./encoder_spec.ts";

/** Rotary position embedding with all scaling rules already applied to the frequencies. */
export interface RopeSpec {
  /** Rotated dimensions of each head (even, <= headDim). */
  readonly dims: number;
  /** `[dims / 2]` radians per position; pair i is (i, i + dims / 2), the "rotate half" order. */
  readonly inverseFrequencies: readonly number[];
  /** cos and sin are multiplied by this (yarn, longrope; otherwise 1). */
  readonly attentionFactor: number;
  /**
   * A sequence of more tokens than `beyond` turns by these instead, from its first position on (longrope): keys that were
   * stored while it was shorter are then wrong.
   */
  readonly long?: { readonly beyond: number; readonly inverseFrequencies: readonly number[] };
}

/**
 * Where a block normalises. before: x + f(norm(x)); after: norm(x + f(x)), and no norm behind the last block;
 * around: x + norm(f(norm(x))).
 */
export type NormPlacement = "before" | "after" | "around";

export interface NormSpec {
  readonly kind: "rmsnorm" | "layernorm";
  readonly eps: number;
  /** Absent: before. */
  readonly placement?: NormPlacement;
}

export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu" | "quick_gelu";

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
  /** Each head of q and of k is normalised (rmsnorm) before it is rotated. */
  readonly headNorms?: boolean;
  /** Scores become cap tanh(score / cap). */
  readonly softCap?: number;
}

/** What attention may have differently in some blocks. */
export type AttentionKind = Pick<AttentionSpec, "scale" | "window" | "rope">;

export interface MlpSpec {
  readonly intermediateSize: number;
  readonly activation: Activation;
  /** true: activation(gate x) * (up x); false: activation(up x). */
  readonly gated: boolean;
  /** There are several MLPs of these sizes, and each token goes through some of them (mixture of experts). */
  readonly experts?: ExpertsSpec;
}

/**
 * A router, one small layer without bias, scores the experts for each token; the best `perToken` run, and their outputs are
 * added in shares: softmax of their scores.
 */
export interface ExpertsSpec {
  readonly count: number;
  readonly perToken: number;
}

/** Of a block; DeepSeek-V3 has 256. */
export const MAX_EXPERTS = 512;

/** What linear layers of a block do, in execution order. */
export const LINEAR_NAMES = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type LinearKind = typeof LINEAR_NAMES[number];
/** A linear layer of a block: its kind, or with experts, for those of the MLP, whose it is ("experts.3.gate"). */
export type LinearName = LinearKind | `experts.${number}.${"gate" | "up" | "down"}`;
/** What an input is to those who read it. */
export type InputKind = "attn" | "o" | "mlp" | "down";
/** The input each layer reads: layers with one input share its activation scales. Experts have inputs of their own. */
export type InputName = InputKind | `experts.${number}.${"mlp" | "down"}`;
export const LINEAR_INPUT: Readonly<Record<LinearKind, InputKind>> = {
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
  /** 0: the model reads no tokens. */
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly blocks: number;
  /** Most tokens of an input; of images: tokens and patches. */
  readonly contextLength: number;
  /** What embeddings are multiplied by; absent: 1. */
  readonly embeddingScale?: number;
  /** A learned vector for each position of the context is added to the embedding. */
  readonly learnedPositions?: boolean;
  readonly norm: NormSpec;
  readonly attention: AttentionSpec;
  readonly mlp: MlpSpec;
  /** Attention and MLP read the same hidden states, and both are added to them: x + attention(norm(x)) + mlp(norm(x)). */
  readonly parallel?: boolean;
  /** Where blocks differ in how they attend: the kinds there are, and which one each block has. See {@linkcode blockSpec}. */
  readonly blockAttention?: { readonly kinds: readonly AttentionKind[]; readonly kindOf: readonly number[] };
  /** By block, where blocks differ from what `attention` and `mlp` say: read through {@linkcode blockSpec}. */
  readonly blockSizes?: readonly BlockSizes[];
  /** lm_head is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** Logits become cap tanh(logit / cap). */
  readonly logitsSoftCap?: number;
  /** Which linear layers of a block carry a bias. */
  readonly biases: readonly LinearKind[];
  /** Of encoders: what stands before and behind the blocks; absent: a token embedding, and hidden states are the answer. */
  readonly encoder?: EncoderSpec;
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
}

/** What a text begins with: BOS, or the end token of models without BOS (they were trained to begin after it). */
export const startToken = ({ bosId, eosIds }: Pick<ModelSpec, "bosId" | "eosIds">): number =>
  bosId ?? eosIds[0] ?? 0;

/** The model as one of its blocks sees it: with the block's own kind of attention, heads, KV heads and intermediate size. */
export function blockSpec(spec: ModelSpec, block: number): ModelSpec {
  const { blockSizes, blockAttention, ...all } = spec;
  if (!blockSizes && !blockAttention) return spec;
  const kind = blockAttention?.kinds[blockAttention.kindOf[block]];
  const { intermediateSize = spec.mlp.intermediateSize, ...heads } = blockSizes?.[block] ?? {};
  return {
    ...all,
    attention: { ...spec.attention, ...kind, ...heads },
    mlp: { ...spec.mlp, intermediateSize },
  };
}

/** {@linkcode blockSpec} of every block, in order. */
export const blockSpecs = (spec: ModelSpec): ModelSpec[] =>
  Array.from({ length: spec.blocks }, (_, block) => blockSpec(spec, block));

/** The last part of a name: what kind of layer it is, or of input. */
const lastPart = (name: string): string => name.slice(name.lastIndexOf(".") + 1);
export const linearKind = (name: LinearName): LinearKind => lastPart(name) as LinearKind;
export const inputKind = (name: InputName): InputKind => lastPart(name) as InputKind;

/** The expert that a layer or an input belongs to; null: to none. */
export function expertOf(name: LinearName | InputName): number | null {
  const match = /^experts\.(\d+)\./.exec(name);
  return match ? Number(match[1]) : null;
}

/** The input that a layer reads: an expert's layers read that expert's. */
export function inputOf(name: LinearName): InputName {
  const kind = linearKind(name);
  return `${name.slice(0, name.length - kind.length)}${LINEAR_INPUT[kind]}` as InputName;
}

/** `[dOut, dIn]` of each linear layer of a block (of all, when blocks do not differ), in execution order. */
export function linearShapes(
  spec: ModelSpec,
): Record<string, readonly [number, number]> & Partial<Record<LinearKind, readonly [number, number]>> {
  const { heads, kvHeads, headDim } = spec.attention;
  const d = spec.hiddenSize, { intermediateSize: f, gated, experts } = spec.mlp;
  const mlp = {
    ...(gated ? { gate: [f, d] as const } : {}),
    up: [f, d] as const,
    down: [d, f] as const,
  };
  return {
    q: [heads * headDim, d],
    k: [kvHeads * headDim, d],
    v: [kvHeads * headDim, d],
    o: [d, heads * headDim],
    ...(experts ? mlpOfEach(experts, mlp) : mlp),
  };
}

const mlpOfEach = <T>({ count }: ExpertsSpec, mlp: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(
    Array.from(
      { length: count },
      (_, expert) =>
        Object.entries(mlp).map(([kind, shape]) => [`experts.${expert}.${kind}`, shape] as const),
    ).flat(),
  );

/** The linear layers of a block, in execution order. */
export const linearNames = (spec: ModelSpec): LinearName[] => Object.keys(linearShapes(spec)) as LinearName[];

/** The inputs of a block's linear layers, in execution order. */
export const inputNames = (spec: ModelSpec): InputName[] => [...new Set(linearNames(spec).map(inputOf))];

/** `[experts, hidden]` of the router, which scores experts; null without them. */
export const routerShape = (
  { hiddenSize, mlp: { experts } }: Pick<ModelSpec, "hiddenSize" | "mlp">,
): readonly [number, number] | null => experts ? [experts.count, hiddenSize] : null;

/** Norms of a block: of its two inputs (or, placed after, of its two sums), of what is added to x, and of heads. */
export type NormName = "attnNorm" | "mlpNorm" | "attnPostNorm" | "mlpPostNorm" | "qNorm" | "kNorm";

/** What a norm's weights are. */
export interface NormShape {
  readonly length: number;
  readonly bias: boolean;
}

/** The norms that a block has. */
export function blockNorms(spec: ModelSpec): Readonly<Partial<Record<NormName, NormShape>>> {
  const { norm: { placement }, attention: { headNorms, headDim } } = spec;
  const norm = normShape(spec), head = { length: headDim, bias: false };
  return {
    attnNorm: norm,
    mlpNorm: norm,
    ...placement === "around" ? { attnPostNorm: norm, mlpPostNorm: norm } : {},
    ...headNorms ? { qNorm: head, kNorm: head } : {},
  };
}

/** A norm of hidden states. */
export const normShape = ({ norm, hiddenSize }: ModelSpec): NormShape => ({
  length: hiddenSize,
  bias: norm.kind === "layernorm",
});

/** Whether hidden states are normalised behind the last block. */
export const hasFinalNorm = ({ norm, encoder }: Pick<ModelSpec, "norm" | "encoder">): boolean =>
  norm.placement !== "after" && !encoder?.normsPooled;

/** Whether the model reads token ids: it then has a token embedding. */
export const readsTokens = ({ encoder }: Pick<ModelSpec, "encoder">): boolean => !encoder?.patches;
