/**
 * An opened source model (Hugging Face folder or GGUF file), read tensor by tensor. Weights are addressed by role,
 * never by file name, so that nothing above this folder knows a naming scheme, a fused weight or a quantised type.
 */
import type { EncoderRole } from "./encoder_spec.ts";
import type { LinearName, ModelSpec, NormName } from "./spec.ts";

/**
 * `embedding`, `positions` (learned ones), `finalNorm`, `head`, `block.3.q`, `block.3.q.bias`, `block.3.attnNorm` and the
 * other norms of a block (+ `.bias` for layernorm), `block.3.router` of models with experts; what encoders have besides
 * (encoder_spec.ts).
 */
export type WeightRole =
  | "embedding"
  | "positions"
  | "finalNorm"
  | "head"
  | EncoderRole
  | `block.${number}.${LinearName | NormName | "router"}`
  | `${string}.bias`;

export interface Weight {
  /** Row-major values, `[dOut, dIn]` for linear layers, `[vocab, hidden]` and `[context, hidden]` for tables, `[n]` for vectors. */
  readonly data: Float32Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

/** What the tokenizer needs, in the Hugging Face layout (GGUF vocabularies are converted to it). */
export interface TokenizerFiles {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  /** Jinja source, null when the model has none. */
  readonly chatTemplate: string | null;
  /** A template of its own for conversations with tools, where the model has one besides. */
  readonly toolTemplate?: string | null;
}

/** What a model's folder says of it beside the tensors; a GGUF file's metadata in the same terms. */
export interface SourceConfig {
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>;
  /** Its fields with whole numbers that were written as floats (12.0): transformers tells the two apart. */
  readonly floatFields: readonly string[];
  /** generation_config.json; null: there is none. */
  readonly generation: Readonly<Record<string, unknown>> | null;
}

/** How image files become pixels, as the file says it. */
export type ImageProcessorConfig = Readonly<Record<string, unknown>>;

export interface Checkpoint {
  readonly spec: ModelSpec;
  /** The file or folder it was read from. */
  readonly path: string;
  readonly format: "safetensors" | "gguf";
  /** Bytes of all tensors as stored. */
  readonly tensorBytes: number;
  readonly tokenizerFiles: TokenizerFiles | null;
  /** Absent: not known, as of weights made in memory. */
  readonly sourceConfig?: SourceConfig | null;
  /** preprocessor_config.json of a model that reads images; absent or null: none. */
  readonly imageProcessor?: ImageProcessorConfig | null;
  has(role: WeightRole): boolean;
  /**
   * Reads one weight as float32. `head` of a tied model is the embedding.
   * @throws {OatmillError} invalid_checkpoint (missing, wrong shape, leaves the file), non_finite_weights
   */
  read(role: WeightRole): Promise<Weight>;
  close(): void;
}
