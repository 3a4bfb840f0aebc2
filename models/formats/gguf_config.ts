/** GGUF metadata as the fields of config.json, so that families and checks see one kind of config. */
import type { JsonObject } from "./json_file.ts";
import type { GgufValue } from "./gguf_value.ts";

type Metadata = ReadonlyMap<string, GgufValue>;

/** config.json field -> metadata key; `{arch}` is general.architecture. Keys as in llama.cpp's gguf-py constants. */
export const GGUF_FIELDS: Readonly<Record<string, string>> = {
  hidden_size: "{arch}.embedding_length",
  intermediate_size: "{arch}.feed_forward_length",
  num_hidden_layers: "{arch}.block_count",
  num_attention_heads: "{arch}.attention.head_count",
  num_key_value_heads: "{arch}.attention.head_count_kv",
  head_dim: "{arch}.attention.key_length",
  num_local_experts: "{arch}.expert_count",
  num_experts_per_tok: "{arch}.expert_used_count",
  vocab_size: "{arch}.vocab_size",
  max_position_embeddings: "{arch}.context_length",
  rms_norm_eps: "{arch}.attention.layer_norm_rms_epsilon",
  rope_theta: "{arch}.rope.freq_base",
  rope_local_base_freq: "{arch}.rope.freq_base_swa",
  sliding_window: "{arch}.attention.sliding_window",
  sliding_window_pattern: "{arch}.attention.sliding_window_pattern",
  attn_logit_softcapping: "{arch}.attn_logit_softcapping",
  final_logit_softcapping: "{arch}.final_logit_softcapping",
  use_parallel_residual: "{arch}.use_parallel_residual",
  bos_token_id: "tokenizer.ggml.bos_token_id",
};

/**
 * @param architecture `general.architecture`
 * @param tokenRows rows of the embedding, which vocabularies written without a size have
 * @param tied the file has no output weight
 * @param queryScalars by the number of blocks, of models whose files do not say it
 */
export function configFromGguf(
  metadata: Metadata,
  architecture: string,
  { tokenRows, tied, queryScalars = {} }: {
    readonly tokenRows: number | undefined;
    readonly tied: boolean;
    readonly queryScalars?: Readonly<Record<number, number>>;
  },
): JsonObject {
  const config: JsonObject = {};
  for (const [field, key] of Object.entries(GGUF_FIELDS)) {
    config[field] = metadata.get(ggufKey(key, architecture));
  }
  if (tokenRows !== undefined) config.vocab_size = tokenRows;
  config.tie_word_embeddings = tied;
  config.rms_norm_eps ??= metadata.get(ggufKey("{arch}.attention.layer_norm_epsilon", architecture));
  config.eos_token_id = ["eos_token_id", "eot_token_id", "eom_token_id"]
    .map((name) => metadata.get(`tokenizer.ggml.${name}`)).filter((id) => typeof id === "number");
  config.rope_scaling = ropeScaling(metadata, architecture);
  const rotated = metadata.get(`${architecture}.rope.dimension_count`);
  const headDim = config.head_dim ?? Number(config.hidden_size) / Number(config.num_attention_heads);
  const whole = typeof rotated !== "number" || typeof headDim !== "number" || rotated >= headDim;
  config.partial_rotary_factor = whole ? 1 : rotated / headDim;
  const scale = metadata.get(`${architecture}.attention.scale`);
  config.query_pre_attn_scalar = typeof scale === "number" && scale > 0
    ? scale ** -2
    : queryScalars[Number(config.num_hidden_layers)] ?? (headDim || undefined);
  return config;
}

export function ggufKey(key: string, architecture: string): string {
  return key.replace("{arch}", architecture);
}

function ropeScaling(metadata: Metadata, architecture: string): JsonObject | null {
  const get = (name: string) => metadata.get(`${architecture}.rope.scaling.${name}`);
  const type = get("type");
  // Older files wrote scale_linear only.
  const factor = get("factor") ?? metadata.get(`${architecture}.rope.scale_linear`);
  if (type === "none" || (type === undefined && (factor === undefined || factor === 1))) return null;
  return {
    rope_type: type ?? "linear",
    factor,
    original_max_position_embeddings: get("original_context_length"),
    attention_factor: get("attn_factor"),
  };
}
