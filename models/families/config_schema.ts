/** The fields of config.json that matter, with limits that keep a hostile file from costing memory or time. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { MAX_EXPERTS } from "../spec.ts";

/** Several times the largest public models; beyond lies a mistake or an attack. */
const LIMITS = {
  width: 1 << 18,
  blocks: 1024,
  heads: 4096,
  headDim: 4096,
  vocab: 1 << 23,
  positions: 2 ** 30,
  pixels: 1 << 14,
  patch: 256,
  registers: 256,
  tokenTypes: 256,
  labels: 1 << 17,
} as const;

const count = (max: number) => z.int().min(1).max(max);
const tokenId = z.int();
const record = z.record(z.string(), z.unknown());

/** Names of activations in transformers -> ours. "gelu_new" and "gelu_fast" are the tanh form. */
export const ACTIVATIONS = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
  quick_gelu: "quick_gelu",
} as const;

// Unknown fields are dropped, so a "__proto__" field never reaches an object of ours.
const configSchema = z.object({
  hidden_size: count(LIMITS.width),
  intermediate_size: count(LIMITS.width * 4),
  num_hidden_layers: count(LIMITS.blocks),
  num_attention_heads: count(LIMITS.heads),
  num_key_value_heads: count(LIMITS.heads).nullish(),
  head_dim: count(LIMITS.headDim).nullish(),
  num_local_experts: z.int().min(0).max(MAX_EXPERTS).nullish(),
  num_experts_per_tok: z.int().min(0).max(MAX_EXPERTS).nullish(),
  /** 0 in families that read images. */
  vocab_size: z.int().min(0).max(LIMITS.vocab),
  max_position_embeddings: count(LIMITS.positions).nullish(),
  max_sequence_length: count(LIMITS.positions).nullish(),
  hidden_act: z.enum(Object.keys(ACTIVATIONS) as (keyof typeof ACTIVATIONS)[]).nullish(),
  rms_norm_eps: z.number().positive().max(1).nullish(),
  rope_theta: z.number().min(1).max(1e12).nullish(),
  rope_scaling: record.nullish(),
  rope_parameters: record.nullish(),
  partial_rotary_factor: z.number().positive().max(1).nullish(),
  rope_local_base_freq: z.number().min(1).max(1e12).nullish(),
  original_max_position_embeddings: count(LIMITS.positions).nullish(),
  sliding_window: count(LIMITS.positions).nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().min(0).nullish(),
  sliding_window_pattern: count(LIMITS.blocks).nullish(),
  layer_types: z.array(z.string()).max(LIMITS.blocks).nullish(),
  query_pre_attn_scalar: z.number().positive().max(1e6).nullish(),
  scale_attn_by_inverse_layer_idx: z.boolean().nullish(),
  attn_logit_softcapping: z.number().positive().max(1e6).nullish(),
  final_logit_softcapping: z.number().positive().max(1e6).nullish(),
  word_embed_proj_dim: count(LIMITS.width).nullish(),
  image_size: z.union([count(LIMITS.pixels), z.tuple([count(LIMITS.pixels), count(LIMITS.pixels)])])
    .nullish(),
  patch_size: count(LIMITS.patch).nullish(),
  num_register_tokens: z.int().min(0).max(LIMITS.registers).nullish(),
  projection_dim: count(LIMITS.width).nullish(),
  type_vocab_size: z.int().min(0).max(LIMITS.tokenTypes).nullish(),
  id2label: z.record(z.string(), z.string().max(1000)).refine(
    (labels) => Object.keys(labels).length <= LIMITS.labels,
    `More than ${LIMITS.labels} labels`,
  ).nullish(),
  qkv_bias: z.boolean().nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  use_bias: z.boolean().nullish(),
  bias: z.boolean().nullish(),
  enable_bias: z.boolean().nullish(),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId).max(64)]).nullish(),
  quantization_config: record.nullish(),
  compression_config: record.nullish(),
});
export type ModelConfig = z.infer<typeof configSchema>;

/**
 * @param source how messages call it: "config.json", a GGUF file's name
 * @param fieldName how the source calls a field
 * @throws {OatmillError} invalid_config naming the field and its value, unsupported_format (quantised weights)
 */
export function parseConfig(
  config: Readonly<Record<string, unknown>>,
  source: string,
  fieldName: (field: string) => string = (field) => field,
): ModelConfig {
  const parsed = configSchema.safeParse(config);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    const field = String(path[0]);
    const value = Object.hasOwn(config, field) && config[field] !== undefined
      ? JSON.stringify(config[field], (_, v) => typeof v === "bigint" ? String(v) : v).slice(0, 80)
      : "missing";
    throw new OatmillError(
      "invalid_config",
      `Cannot use ${source}: ${fieldName(field)} is ${value}: ${message}`,
      field,
    );
  }
  for (const field of ["quantization_config", "compression_config"] as const) {
    const config = parsed.data[field];
    if (config && !isSparseOnly(config)) throw quantised(source, field, config);
  }
  return parsed.data;
}

const nothing = z.union([z.null(), z.record(z.string(), z.never()), z.array(z.never())]);

/** What compressed-tensors writes of a model that is sparse and not quantised; formats/compressed_tensors.ts reads it. */
const sparseOnlySchema = z.object({
  quant_method: z.literal(["compressed-tensors", "sparseml"]).nullish(),
  config_groups: nothing.nullish(),
  kv_cache_scheme: nothing.nullish(),
  transform_config: nothing.nullish(),
  sparsity_config: z.object({ format: z.enum(["dense", "sparse-bitmask", "sparse-24-bitmask"]).nullish() }),
});

const isSparseOnly = (config: Readonly<Record<string, unknown>>): boolean =>
  sparseOnlySchema.safeParse(config).success;

function quantised(source: string, field: string, config: Readonly<Record<string, unknown>>): OatmillError {
  const { quant_method, format, sparsity_config: sparsity } = config;
  const named = sparsity && typeof sparsity === "object" && "format" in sparsity ? sparsity.format : format;
  const of = [quant_method, named].filter((value) => typeof value === "string").join(", ").slice(0, 80);
  return new OatmillError(
    "unsupported_format",
    `Cannot read weights of ${source}: ${field} says "${
      of || "an unnamed method"
    }", wanted are plain float weights, ` +
      "dense or sparse (compressed-tensors: dense, sparse-bitmask, sparse-24-bitmask)",
  );
}
