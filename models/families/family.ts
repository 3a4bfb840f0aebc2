/**
 * A model family as data. Everything that differs between families is a field here; `spec_from_config.ts` and
 * `weight_names.ts` turn it into a ModelSpec and tensor names. A family file holds one such object and no code.
 */
import type { LinearName, NormSpec } from "../spec.ts";

/** Linear layers stored as one weight, their rows stacked in this order. */
export interface FusedName {
  readonly tensor: string;
  readonly parts: readonly LinearName[];
}

/** Names without `.weight` / `.bias`; those of a block begin after `block`, where `{block}` is its number. */
export interface TensorNames {
  readonly embedding: string;
  readonly finalNorm: string;
  readonly head: string;
  readonly block: string;
  readonly attnNorm: string;
  readonly mlpNorm: string;
  readonly linear: Readonly<Partial<Record<LinearName, string | FusedName>>>;
}

/** A bias is always there, never, or when this config field is true. */
export type BiasRule = boolean | "attention_bias" | "mlp_bias";

/** `sliding_window` applies always, never, or only when `use_sliding_window` says so (qwen2). */
export type WindowRule = "always" | "never" | "use_sliding_window";

export interface Family {
  readonly name: string;
  /** `model_type` values of config.json. */
  readonly modelTypes: readonly string[];
  /** `architectures` values, looked at when `model_type` is missing. */
  readonly architectures: readonly string[];
  readonly norm: NormSpec["kind"];
  readonly gated: boolean;
  readonly window: WindowRule;
  readonly biases: Readonly<Partial<Record<LinearName, BiasRule>>>;
  /** What a missing `tie_word_embeddings` means. */
  readonly tiedByDefault: boolean;
  readonly names: TensorNames;
  /** null: not met as GGUF. */
  readonly gguf: {
    /** `general.architecture` */
    readonly architecture: string;
    /** q and k rows are stored for interleaved rotary pairs and must be put back in "rotate half" order. */
    readonly permutedRows: boolean;
    readonly linear: TensorNames["linear"];
  } | null;
}
