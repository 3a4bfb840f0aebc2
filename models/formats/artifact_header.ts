/**
 * `oatmill.json`: what an artifact folder holds. Beside it lie `model.safetensors` (packed tensors, in the order of
 * `tensors`, each aligned to 64 bytes within the data section) and the tokenizer files.
 */
import type { Shape2, WeightFormat } from "../../kernels/layout.ts";
import type { ModelSpec } from "../spec.ts";
import type { Recipe } from "../recipe.ts";

/**
 * Tensor names (an encoder's two ends: models/encoder_spec.ts). For each linear layer `block.I.NAME` (`block.I.experts.E.NAME`
 * of experts, beside `block.I.router` in `f32`): either `.w` (dense) or `.s` (sparse) and, when it has a rank, `.v`
 * [rank, dIn] and `.u` [dOut, rank] (dense formats; y = S x + U (V x)); `.bias` where there is one. `block.I.INPUT.scale` (f32
 * [dIn]) multiplies that input before it is quantised; absent = ones. Norm weights `block.I.attnNorm`, `block.I.mlpNorm`,
 * `finalNorm` (+ `.bias`), `embedding` (`f32` or `q8` rows) and, unless tied, `head`.
 */
export interface TensorEntry {
  readonly name: string;
  /** Packed linear layers carry their format; plain vectors are "vector" (f32). */
  readonly format: WeightFormat | { readonly kind: "vector" };
  readonly shape: readonly number[];
  /** From the start of the safetensors data section. */
  readonly offset: number;
  readonly bytes: number;
}

/** One packed tensor of a linear layer: the last part of its name, how it is stored, `[rows, columns]`. */
export interface StoredPart {
  readonly part: "w" | "s" | "u" | "v";
  readonly format: WeightFormat;
  readonly shape: Shape2;
}

export interface LayerReport {
  readonly name: string;
  readonly shape: readonly [number, number];
  /** Share of parameters removed in this layer. */
  readonly rate: number;
  readonly rank: number;
  /** Share of S that is stored. */
  readonly kept: number;
  /** Bits that S or the dense weights take in memory, without scales and places. */
  readonly bits: number;
  /** Their codes; absent in artifacts of versions that knew no mixed precision. */
  readonly values?: Recipe["values"];
  /** |(W - S - L) diag(d)|² / |W diag(d)|², after quantisation. */
  readonly error: number;
}

/** How far an artifact's answers are from the dense model's, on inputs held back. */
export interface Agreement {
  readonly inputs: number;
  /** What they are from. */
  readonly text: string;
  /** By output: |answer - dense answer| / |dense answer| over all inputs, and the largest difference of a value. */
  readonly outputs: readonly { readonly name: string; readonly error: number; readonly largest: number }[];
  /** Share of inputs whose likeliest label is the same; null: there are no labels. */
  readonly sameLabel: number | null;
}

/** A LoRA adapter in an artifact's L. */
export interface MergedAdapter {
  readonly name: string;
  /** What it says it was trained on; null: nothing. */
  readonly baseModel: string | null;
  /** Of its layers, the largest. */
  readonly rank: number;
  readonly parameters: number;
}

/** What training after compression did, and what it took. */
export interface Recovery {
  readonly kind: "distill" | "blockwise";
  readonly train: "lowrank" | "lowrank+sparse";
  /** Name of the text that was trained on. */
  readonly text: string;
  /** Trained on; blockwise: by each block. */
  readonly tokens: number;
  readonly steps: number;
  readonly learningRate: number;
  /** Of the training alone. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly peakRssBytes: number;
  /** On sequences held back from training: KL in nats per token, or mean relative squared error of the blocks. */
  readonly loss: { readonly before: number; readonly after: number };
  /** tokens: it went to its end; early: the loss fell no more; cancelled: it was, and the best so far was kept. */
  readonly stopped: "tokens" | "early" | "cancelled";
  /** As served, on text that was never trained on: that of the header's perplexity. */
  readonly perplexity: { readonly dense: number; readonly before: number; readonly after: number } | null;
}

export interface ArtifactHeader {
  /** artifact_upgrade.ts tells how they differ; new artifacts have the last. */
  readonly format: 1 | 2 | 3;
  readonly oatmill: string;
  readonly created: string;
  readonly name: string;
  readonly spec: ModelSpec;
  readonly recipe: Recipe;
  readonly source: { readonly file: string; readonly format: string; readonly tensorBytes: number };
  /** Chunks (64 columns) per activation block, for every layer. */
  readonly blockChunks: number;
  readonly tensors: readonly TensorEntry[];
  /** What compression made of them; a recovery changes the errors, not these. */
  readonly layers: readonly LayerReport[];
  /** Absent: it was not recovered. */
  readonly recovery?: Recovery;
  /** LoRA adapters that were merged into L, in their order; absent: none. */
  readonly adapters?: readonly MergedAdapter[];
  readonly perplexity: {
    readonly dense: number;
    readonly compressed: number;
    readonly tokens: number;
    readonly text: string;
  } | null;
  /** Of encoders, in place of perplexities; absent or null: not measured. */
  readonly agreement?: Agreement | null;
  /** Bytes of all packed tensors, and of the same model with dense float16 weights. */
  readonly bytes: number;
  readonly denseBytes: number;
  /** name -> size and SHA-256 of every other file of the folder. */
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}
