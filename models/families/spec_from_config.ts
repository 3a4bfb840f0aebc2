/** config.json (or GGUF metadata in its terms) and a family's data -> ModelSpec. */
import { OatmillError } from "../../errors.ts";
import type { Activation, AttentionKind, ExpertsSpec, LinearKind, ModelSpec } from "../spec.ts";
import { canonicalFields, checkRequirements } from "./config_fields.ts";
import { ACTIVATIONS, type ModelConfig, parseConfig } from "./config_schema.ts";
import { encoderFromConfig, imageTokens } from "./encoder_from_config.ts";
import type { BiasRule, Family } from "./family.ts";
import { familyOfConfig } from "./registry.ts";
import { type RopeInput, ropeSpec } from "./rope.ts";
import type { SentencePooling } from "../formats/sentence_pooling.ts";

/** What transformers assumes for fields that old llama configs leave out. */
const DEFAULTS = { eps: 1e-6, theta: 10_000, positions: 2048 } as const;

export interface SpecOptions {
  /** How messages call the config. */
  readonly source?: string;
  /** generation_config.json; its eos tokens end a generation too. */
  readonly generation?: Readonly<Record<string, unknown>> | null;
  readonly family?: Family;
  /** How the source calls a field of config.json. */
  readonly fieldName?: (field: string) => string;
  /** How a text encoder's states become one vector, where a file beside the config says so (sentence_pooling.ts). */
  readonly pooling?: SentencePooling | null;
}

/** @throws {OatmillError} invalid_config, unsupported_architecture, unsupported_format */
export function specFromConfig(raw: Readonly<Record<string, unknown>>, options: SpecOptions = {}): ModelSpec {
  const { source = "config.json", generation = null } = options;
  const family = options.family ?? familyOfConfig(raw);
  const fields = canonicalFields(raw, family);
  checkRequirements(fields, family, source);
  const config = parseConfig(
    fields,
    source,
    options.fieldName ?? ((field) => family.fields?.[field] ?? field),
  );
  if (config.vocab_size === 0 && family.encoder?.reads !== "images") {
    throw new OatmillError(
      "invalid_config",
      `Cannot use ${source}: vocab_size is 0, must be 1 or more`,
      "vocab_size",
    );
  }
  const architecture = String((raw.architectures as unknown[] | undefined)?.[0] ?? family.architectures[0])
    .slice(0, 80);
  const encoder = encoderFromConfig(family, config, {
    architecture,
    source,
    pooling: options.pooling ?? null,
  });
  const contextLength = encoder?.patches ? imageTokens(encoder.patches, source) : contextOf(config, family);
  const heads = headsOf(config, family, source);
  const kinds = inSource(source, () => attentionKinds(family, config, { heads, contextLength }));
  return {
    family: family.name,
    architecture,
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    blocks: config.num_hidden_layers,
    contextLength,
    ...family.scaledEmbedding ? { embeddingScale: Math.sqrt(config.hidden_size) } : {},
    ...family.positions === "learned" && !encoder?.patches ? { learnedPositions: true } : {},
    norm: {
      kind: family.norm,
      eps: config.rms_norm_eps ?? DEFAULTS.eps,
      ...family.normPlacement ? { placement: family.normPlacement } : {},
    },
    ...kinds,
    mlp: {
      intermediateSize: config.intermediate_size,
      activation: activationOf(family, config),
      gated: family.gated,
      ...expertsOf(family, config, source),
    },
    ...family.parallel ? { parallel: true } : {},
    tiedEmbeddings: tiedEmbeddings(family, config),
    ...config.final_logit_softcapping ? { logitsSoftCap: config.final_logit_softcapping } : {},
    biases: biasesOf(family, config),
    ...encoder ? { encoder } : {},
    bosId: idsBelow(config.vocab_size, config.bos_token_id)[0] ?? null,
    eosIds: idsBelow(config.vocab_size, config.eos_token_id, generation?.eos_token_id),
  };
}

/** Experts of all blocks together; DeepSeek-V3 has 15,616. The names of a million would take a gigabyte. */
const MAX_ALL_EXPERTS = 1 << 14;

function expertsOf(
  family: Family,
  { num_local_experts: count, num_experts_per_tok: perToken, num_hidden_layers: blocks }: ModelConfig,
  source: string,
): { readonly experts?: ExpertsSpec } {
  if (!count || !family.names.experts) return {};
  const fail = (field: string, why: string) =>
    new OatmillError("invalid_config", `Cannot use ${source}: ${field} ${why}`, field);
  if (count * blocks > MAX_ALL_EXPERTS) {
    throw fail(
      "num_local_experts",
      `is ${count} in ${blocks} layers, at most ${MAX_ALL_EXPERTS} fit in a model`,
    );
  }
  if (!perToken || perToken > count) {
    throw fail("num_experts_per_tok", `is ${perToken ?? "missing"}, must be from 1 to the ${count} experts`);
  }
  return { experts: { count, perToken } };
}

function activationOf(family: Family, { hidden_act: name }: ModelConfig): Activation {
  return name ? family.activations?.[name] ?? ACTIVATIONS[name] : "silu";
}

/** An embedding of another width is multiplied into the model's width when it is read, and another way for the head. */
function tiedEmbeddings(family: Family, config: ModelConfig): boolean {
  const { hidden_size: width, word_embed_proj_dim: stored, tie_word_embeddings: tied } = config;
  return (stored ?? width) === width && (tied ?? family.tiedByDefault);
}

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

function headsOf(config: ModelConfig, family: Family, source: string): Heads {
  const heads = config.num_attention_heads, kvHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  checkHeads(config, { heads, kvHeads, headDim, source, rotary: family.positions !== "learned" });
  return { heads, kvHeads, headDim };
}

/** Runs what knows no source; its errors name it. */
function inSource<T>(source: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof OatmillError)) throw error;
    const message = error.message.replace(/^Cannot use /, `Cannot use ${source}: `);
    throw new OatmillError(error.code, message, error.param, { cause: error });
  }
}

/** What all blocks have in common, and the kinds where they differ. */
function attentionKinds(
  family: Family,
  config: ModelConfig,
  { heads: { heads, kvHeads, headDim }, contextLength }: { heads: Heads; contextLength: number },
): Pick<ModelSpec, "attention" | "blockAttention"> {
  const sliding = slidingBlocks(family, config, contextLength);
  const ropeOfKind = new Map([...new Set(sliding)].map((slides) => [
    slides,
    family.positions === "learned" ? null : ropeSpec(ropeInput(config, headDim, slides)),
  ]));
  const scale = (config.query_pre_attn_scalar ?? headDim) ** -0.5;
  const kinds: AttentionKind[] = [], kindOf: number[] = [];
  sliding.forEach((slides, block) => {
    const kind = {
      scale: config.scale_attn_by_inverse_layer_idx ? scale / (block + 1) : scale,
      window: slides ? config.sliding_window! : null,
      rope: ropeOfKind.get(slides)!,
    };
    const known = kinds.findIndex((k) => k.scale === kind.scale && k.window === kind.window);
    kindOf.push(known >= 0 ? known : kinds.push(kind) - 1);
  });
  const softCap = config.attn_logit_softcapping;
  return {
    attention: {
      heads,
      kvHeads,
      headDim,
      causal: !family.encoder,
      ...kinds[0],
      ...family.headNorms ? { headNorms: true } : {},
      ...softCap ? { softCap } : {},
    },
    ...kinds.length > 1 ? { blockAttention: { kinds, kindOf } } : {},
  };
}

function checkHeads(
  config: ModelConfig,
  { heads, kvHeads, headDim, source, rotary }: Heads & { readonly source: string; readonly rotary: boolean },
): void {
  const fail = (field: string, why: string) =>
    new OatmillError("invalid_config", `Cannot use ${source}: ${field} ${why}`, field);
  if (!Number.isInteger(headDim)) {
    throw fail(
      "num_attention_heads",
      `is ${heads}, must divide hidden_size ${config.hidden_size} when head_dim is missing`,
    );
  }
  if (rotary && headDim % 2 !== 0) throw fail("head_dim", `is ${headDim}, must be even for rotary positions`);
  if (heads % kvHeads !== 0) {
    throw fail("num_key_value_heads", `is ${kvHeads}, must divide the ${heads} heads`);
  }
}

/** Linear scaling was published with the unscaled length (Vicuna 16k); the scaled one stands in max_sequence_length. */
function contextOf(config: ModelConfig, { unusedPositions = 0 }: Family): number {
  return Math.max(
    (config.max_position_embeddings ?? config.max_sequence_length ?? DEFAULTS.positions) - unusedPositions,
    config.rope_scaling?.type === "linear" ? config.max_sequence_length ?? 0 : 0,
  );
}

/**
 * Sliding blocks may turn by frequencies of their own (gemma3), unscaled. transformers 5 writes rope_parameters with theta
 * inside, and one for each kind of block where they differ.
 */
function ropeInput(config: ModelConfig, headDim: number, slides: boolean): RopeInput {
  const byKind = config.rope_parameters?.[slides ? "sliding_attention" : "full_attention"];
  const parameters = isRecord(byKind) ? byKind : config.rope_parameters;
  const local = slides && !parameters ? config.rope_local_base_freq ?? null : null;
  const theta = local ?? parameters?.rope_theta ?? config.rope_theta ?? DEFAULTS.theta;
  if (typeof theta !== "number" || !(theta >= 1 && theta <= 1e12)) {
    throw new OatmillError(
      "invalid_config",
      `Cannot use rope_theta: it is ${JSON.stringify(theta)}, must be a number from 1 to 1e12`,
      "rope_theta",
    );
  }
  return {
    dims: rotatedDims(parameters?.partial_rotary_factor ?? config.partial_rotary_factor ?? 1, headDim),
    theta,
    maxPositions: config.max_position_embeddings ?? DEFAULTS.positions,
    originalPositions: config.original_max_position_embeddings ?? null,
    scaling: local ? null : parameters ?? config.rope_scaling ?? null,
  };
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

function rotatedDims(share: unknown, headDim: number): number {
  const dims = typeof share === "number" && share <= 1 ? Math.floor(headDim * share) : 0;
  if (dims % 2 === 0 && dims > 0) return dims;
  throw new OatmillError(
    "invalid_config",
    `Cannot use partial_rotary_factor: it rotates ${dims} dimensions, must be an even number`,
    "partial_rotary_factor",
  );
}

/** Which blocks have the sliding window: none when no token can be outside of it. */
function slidingBlocks(family: Family, config: ModelConfig, contextLength: number): boolean[] {
  const blocks = Array.from({ length: config.num_hidden_layers }, (_, i) => i);
  const window = config.sliding_window ?? contextLength;
  if (family.window === "never" || window >= contextLength) return blocks.map(() => false);
  if (family.window === "always") return blocks.map(() => true);
  if (family.window === "use_sliding_window" && !config.use_sliding_window) return blocks.map(() => false);
  const types = config.layer_types, pattern = config.sliding_window_pattern ?? 1;
  if (types && types.length !== blocks.length) {
    throw new OatmillError(
      "invalid_config",
      `Cannot use layer_types: it has ${types.length} entries, must have one for each of ${blocks.length} layers`,
      "layer_types",
    );
  }
  if (types) return blocks.map((i) => types[i] === "sliding_attention");
  return family.window === "use_sliding_window"
    ? blocks.map((i) => i >= (config.max_window_layers ?? 0))
    : blocks.map((i) => (i + 1) % pattern !== 0);
}

function biasesOf(family: Family, config: ModelConfig): LinearKind[] {
  const holds = (rule: BiasRule): boolean => typeof rule === "boolean" ? rule : config[rule] === true;
  return (Object.keys(family.biases) as LinearKind[]).filter((name) => holds(family.biases[name] ?? false));
}

/** Token ids out of numbers and lists of them; files name ids outside the vocabulary (-1), which never come up. */
function idsBelow(vocabSize: number, ...values: unknown[]): number[] {
  const ids = values.flat().filter((id): id is number =>
    Number.isInteger(id) && id as number >= 0 && id as number < vocabSize
  );
  return [...new Set(ids)];
}
