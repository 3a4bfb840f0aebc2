/**
 * A model family as data. Everything that differs between families is a field here; `config_fields.ts`,
 * `spec_from_config.ts` and `weight_names.ts` turn it into a ModelSpec and tensor names. A family file holds one such
 * object and no code.
 */
import type { ClassifierInput, EncoderRole, PoolerActivation, Pooling } from "../encoder_spec.ts";
import type { Activation, LinearKind, NormName, NormSpec } from "../spec.ts";

/** Linear layers stored as one weight. */
export interface FusedName {
  readonly tensor: string;
  /** Their rows are stacked in this order. */
  readonly parts: readonly LinearKind[];
  /** The stack is not of whole layers: each KV head has the rows of its queries, its keys and its values together. */
  readonly byKvHead?: true;
}

/** Where a weight lies that only encoders have. */
export interface EncoderTensor {
  readonly tensor: string;
  /** No prefix stands before the name. */
  readonly bare?: true;
  /** The name is whole, with no `.weight` behind it, and the shape begins with so many ones. */
  readonly parameter?: { readonly ones: number };
}

/** A layer of all experts in one tensor `[experts, rows, columns]`. */
export interface StackedName {
  /** Its whole name. */
  readonly tensor: string;
  /** The rows of an expert are these layers', in this order. */
  readonly parts: readonly LinearKind[];
}

/** How a file names the router and the experts' layers. */
export interface ExpertNames {
  readonly router: string;
  /** Where each expert has tensors of its own `{expert}` is its number. */
  readonly linear: Readonly<Partial<Record<LinearKind, string | StackedName>>>;
}

/** Names without `.weight` / `.bias`; those of a block begin after `block`, where `{block}` is its number. */
export interface TensorNames {
  /** What may stand before every name but the head's; the first that the file has. Default: nothing. */
  readonly prefixes?: readonly string[];
  /** Of models that read images: the projection of patches. */
  readonly embedding: string;
  /** Of families with learned positions. */
  readonly positions?: { readonly tensor: string; readonly firstRow: number };
  /** Linear layers behind the embedding and before the head, in models whose embedding is not as wide as they are. */
  readonly projections?: { readonly in: string; readonly out: string };
  /** Of families that have one. */
  readonly finalNorm?: string;
  /** Of decoders. */
  readonly head?: string;
  readonly encoder?: Readonly<Partial<Record<EncoderRole | "positions", EncoderTensor>>>;
  readonly block: string;
  readonly norms: Readonly<Partial<Record<NormName, string>>>;
  readonly linear: Readonly<Partial<Record<LinearKind, string | FusedName>>>;
  /** Of families with experts: the ways there are to store them, told apart by the router's name. */
  readonly experts?: readonly ExpertNames[];
  /** Linear layers of blocks are stored `[dIn, dOut]`. */
  readonly transposed?: true;
  /** Vectors that the outputs of `o` and `down` are multiplied by, as whole names behind `block`. */
  readonly layerScale?: { readonly o: string; readonly down: string };
  /** What is added to the stored weights of norms. */
  readonly normOffset?: number;
}

/** Config fields of yes or no that say whether there are biases. */
export type BiasField = "attention_bias" | "mlp_bias" | "use_bias" | "bias" | "enable_bias" | "qkv_bias";
/** A bias is always there, never, or when this config field is true. */
export type BiasRule = boolean | BiasField;

/**
 * Which blocks `sliding_window` applies to: all, none, those from `max_window_layers` on if `use_sliding_window` says so,
 * or all but the last of every `sliding_window_pattern`. A config's `layer_types` goes before the last two.
 */
export type WindowRule = "always" | "never" | "use_sliding_window" | "sliding_window_pattern";

/** What makes a family one of encoders. */
export interface EncoderFamily {
  readonly reads: "images" | "text";
  readonly embeddingNorm?: true;
  readonly normsPooled?: true;
  /** Of images: a second token behind CLS; a projection of patches without bias; how positions are interpolated. */
  readonly distillation?: true;
  readonly patchBias?: false;
  readonly antialias?: true;
  /** Of architectures without a classifier. */
  readonly pooling: Pooling;
  /** What pooler there is where a classifier reads it. */
  readonly pooler?: PoolerActivation;
  /** By architecture: what its classifier reads. */
  readonly classifiers: Readonly<Record<string, ClassifierInput>>;
  /** Architectures that project the pooled vector. */
  readonly projected?: readonly string[];
}

export interface Family {
  readonly name: string;
  /** The models that people know it by, for the README's table. */
  readonly models: string;
  /** `model_type` values of config.json. */
  readonly modelTypes: readonly string[];
  /** `architectures` values, looked at when `model_type` is missing. */
  readonly architectures: readonly string[];
  readonly norm: NormSpec["kind"];
  /** Default: before. */
  readonly normPlacement?: NormSpec["placement"];
  readonly headNorms?: true;
  readonly parallel?: true;
  readonly gated: boolean;
  /** Absent: a decoder. */
  readonly encoder?: EncoderFamily;
  /** Field of the config that holds the part of it that is read. */
  readonly nested?: string;
  /** Default: rotary. */
  readonly positions?: "rotary" | "learned";
  /** Of `max_position_embeddings`, rows of the table that no token has. */
  readonly unusedPositions?: number;
  /** Embeddings are multiplied by the root of the hidden size. */
  readonly scaledEmbedding?: true;
  readonly window: WindowRule;
  readonly biases: Readonly<Partial<Record<LinearKind, BiasRule>>>;
  /** What a missing `tie_word_embeddings` means. */
  readonly tiedByDefault: boolean;
  /** What the family calls fields of the schema (config_schema.ts). */
  readonly fields?: Readonly<Record<string, string>>;
  /** What missing fields mean, where it is not what they mean in llama. */
  readonly defaults?: Readonly<Record<string, unknown>>;
  /** `intermediate_size` in parts of `hidden_size` where it is missing: a number, or the field that says it. */
  readonly intermediateFactor?: number | string;
  /** Of that size two thirds, rounded up to a multiple of so many, are the gate's and as many `up`'s. */
  readonly gatedMultiple?: number;
  /** Activations that mean another one than their name says. */
  readonly activations?: Readonly<Record<string, Activation>>;
  /** The only values of fields that are known here: others make another model of it. */
  readonly requires?: Readonly<Record<string, unknown>>;
  /** Fields of the config that make a difference beyond numbers. */
  readonly variants?: readonly {
    readonly when: Readonly<Record<string, unknown>>;
    readonly then: Partial<Omit<Family, "variants">>;
  }[];
  readonly names: TensorNames;
  /** null: not met as GGUF. */
  readonly gguf: {
    /** `general.architecture` */
    readonly architecture: string;
    /** q and k rows are stored for interleaved rotary pairs and must be put back in "rotate half" order. */
    readonly permutedRows?: true;
    readonly names: TensorNames;
    /** `query_pre_attn_scalar` of models whose scores are scaled by another number than the head's width, by their blocks. */
    readonly queryScalars?: Readonly<Record<number, number>>;
  } | null;
}
