/**
 * What an encoder has before and behind its blocks, as data: how images or texts become hidden states, how hidden states
 * become one vector and labels. The blocks are as in {@linkcode ModelSpec}.
 */
import type { ModelSpec } from "./spec.ts";

/** Images are cut into squares, each of which becomes one hidden state; behind CLS and its like. */
export interface PatchSpec {
  /** Of the images that positions were learned for, in pixels; others get interpolated positions. */
  readonly height: number;
  readonly width: number;
  /** Side of a patch in pixels. */
  readonly size: number;
  /** The projection has a bias. */
  readonly bias: boolean;
  /** A second token behind CLS (DeiT). */
  readonly distillation: boolean;
  /** Tokens between CLS and the patches that have no position (DINOv2 with registers). */
  readonly registers: number;
  /** Positions are interpolated with a filter as wide as the step, where the grid shrinks. */
  readonly antialias: boolean;
}

/** The one vector that stands for an input: the first state, the mean of all, or the first through the pooler. */
export type Pooling = "cls" | "mean" | "pooler";
/** Of the pooler: a square linear layer on the first state. */
export type PoolerActivation = "tanh" | "relu";
/** What a classifier reads; two tokens have a classifier each, whose logits are averaged. */
export type ClassifierInput = "cls" | "pooler" | "cls_and_mean_of_patches" | "cls_and_distillation";

export interface EncoderSpec {
  /** null: it reads token ids. */
  readonly patches: PatchSpec | null;
  /** Rows of the table of token types; 0: none. */
  readonly tokenTypes: number;
  /** Hidden states are normalised before the first block. */
  readonly embeddingNorm: boolean;
  readonly pooling: Pooling;
  readonly pooler: PoolerActivation | null;
  /** The last norm is for the pooled vector and not for hidden states (CLIP). */
  readonly normsPooled: boolean;
  /** Width of the pooled vector where it is projected (CLIP). */
  readonly projection: number | null;
  /** The pooled vector has length 1. */
  readonly unitLength: boolean;
  readonly classifier: ClassifierInput | null;
  /** By logit; empty without a classifier. */
  readonly labels: readonly string[];
}

/** Of a pixel: red, green, blue. */
export const CHANNELS = 3;

/** Patches of an image of that size; what is left over at the right and at the bottom is not read. */
export const gridOf = ({ size }: PatchSpec, { height, width }: { height: number; width: number }) => ({
  rows: Math.floor(height / size),
  columns: Math.floor(width / size),
});

/** Tokens before the patches: CLS, the distillation token, registers. */
export const prefixLength = ({ distillation, registers }: PatchSpec): number =>
  1 + (distillation ? 1 : 0) + registers;

/** Rows of the table of positions: CLS, the distillation token, the grid. */
export function positionRows(patches: PatchSpec): number {
  const { rows, columns } = gridOf(patches, patches);
  return prefixLength(patches) - patches.registers + rows * columns;
}

/** Values of a patch: `[3, size, size]`. */
export const patchWidth = ({ size }: PatchSpec): number => CHANNELS * size * size;

/** Weights of an encoder that no decoder has. */
export type EncoderRole =
  | "patch"
  | "classToken"
  | "distillationToken"
  | "registers"
  | "tokenTypes"
  | "embeddingNorm"
  | "pooler"
  | "projection"
  | "classifier"
  | "distillationClassifier";

export interface EncoderWeight {
  readonly role: EncoderRole | "positions" | "finalNorm";
  readonly shape: readonly number[];
  /** Length of its bias; 0: none. */
  readonly bias: number;
  /** The kernels read it as a matrix or a table; the others are read as they stand, outside of the plan. */
  readonly packed: boolean;
}

/** What stands before and behind an encoder's blocks, besides a token embedding with its positions and the norm of states. */
export function encoderWeights({ encoder, hiddenSize, norm }: ModelSpec): EncoderWeight[] {
  if (!encoder) return [];
  const { patches, tokenTypes, embeddingNorm, pooler, normsPooled, projection, classifier, labels } = encoder;
  const weights: EncoderWeight[] = [];
  const add = (role: EncoderWeight["role"], shape: readonly number[], more: Partial<EncoderWeight> = {}) =>
    weights.push({ role, shape, bias: 0, packed: false, ...more });
  const addNorm = (role: EncoderWeight["role"]) =>
    add(role, [hiddenSize], { bias: norm.kind === "layernorm" ? hiddenSize : 0 });
  if (patches) {
    add("patch", [hiddenSize, patchWidth(patches)], { bias: patches.bias ? hiddenSize : 0, packed: true });
    add("classToken", [hiddenSize]);
    if (patches.distillation) add("distillationToken", [hiddenSize]);
    if (patches.registers > 0) add("registers", [patches.registers, hiddenSize]);
    add("positions", [positionRows(patches), hiddenSize]);
  }
  if (tokenTypes > 0) add("tokenTypes", [tokenTypes, hiddenSize], { packed: true });
  if (embeddingNorm) addNorm("embeddingNorm");
  if (normsPooled) addNorm("finalNorm");
  if (pooler) add("pooler", [hiddenSize, hiddenSize], { bias: hiddenSize });
  if (projection) add("projection", [projection, hiddenSize]);
  const head = [labels.length, classifier === "cls_and_mean_of_patches" ? 2 * hiddenSize : hiddenSize];
  if (classifier) add("classifier", head, { bias: labels.length });
  if (classifier === "cls_and_distillation") add("distillationClassifier", head, { bias: labels.length });
  return weights;
}
