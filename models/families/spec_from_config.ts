/** config.json (or GGUF metadata in its terms) and a family's data -> ModelSpec. */
import { OatmillError } from "../../errors.ts";
import type { LinearName, ModelSpec } from "../spec.ts";
import { ACTIVATIONS, type ModelConfig, parseConfig } from "./config_schema.ts";
import type { BiasRule, Family } from "./family.ts";
import { familyOfConfig } from "./registry.ts";
import { ropeSpec } from "./rope.ts";

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
}

/** @throws {OatmillError} invalid_config, unsupported_architecture, unsupported_format */
export function specFromConfig(raw: Readonly<Record<string, unknown>>, options: SpecOptions = {}): ModelSpec {
  const { source = "config.json", generation = null } = options;
  const family = options.family ?? familyOfConfig(raw);
  const config = parseConfig(raw, source, options.fieldName);
  const heads = config.num_attention_heads, kvHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  const contextLength = contextOf(config);
  checkHeads(config, { heads, kvHeads, headDim, source });
  return {
    family: family.name,
    architecture: String((raw.architectures as unknown[] | undefined)?.[0] ?? family.architectures[0]).slice(
      0,
      80,
    ),
    vocabSize: config.vocab_size,
    hiddenSize: config.hidden_size,
    blocks: config.num_hidden_layers,
    contextLength,
    norm: { kind: family.norm, eps: config.rms_norm_eps ?? DEFAULTS.eps },
    attention: {
      heads,
      kvHeads,
      headDim,
      causal: true,
      scale: headDim ** -0.5,
      window: windowOf(family, config, contextLength),
      rope: ropeOf(config, headDim),
    },
    mlp: {
      intermediateSize: config.intermediate_size,
      activation: ACTIVATIONS[config.hidden_act ?? "silu"],
      gated: family.gated,
    },
    tiedEmbeddings: config.tie_word_embeddings ?? family.tiedByDefault,
    biases: biasesOf(family, config),
    bosId: idsBelow(config.vocab_size, config.bos_token_id)[0] ?? null,
    eosIds: idsBelow(config.vocab_size, config.eos_token_id, generation?.eos_token_id),
  };
}

function checkHeads(
  config: ModelConfig,
  { heads, kvHeads, headDim, source }: { heads: number; kvHeads: number; headDim: number; source: string },
): void {
  const fail = (field: string, why: string) =>
    new OatmillError("invalid_config", `Cannot use ${source}: ${field} ${why}`, field);
  if (!Number.isInteger(headDim)) {
    throw fail(
      "num_attention_heads",
      `is ${heads}, must divide hidden_size ${config.hidden_size} when head_dim is missing`,
    );
  }
  if (headDim % 2 !== 0) throw fail("head_dim", `is ${headDim}, must be even for rotary positions`);
  if (heads % kvHeads !== 0) {
    throw fail("num_key_value_heads", `is ${kvHeads}, must divide the ${heads} heads`);
  }
}

/** Linear scaling was published with the unscaled length (Vicuna 16k); the scaled one stands in max_sequence_length. */
function contextOf(config: ModelConfig): number {
  return Math.max(
    config.max_position_embeddings ?? config.max_sequence_length ?? DEFAULTS.positions,
    config.rope_scaling?.type === "linear" ? config.max_sequence_length ?? 0 : 0,
  );
}

function ropeOf(config: ModelConfig, headDim: number): ReturnType<typeof ropeSpec> {
  // transformers 5 writes rope_parameters with theta inside.
  const scaling = config.rope_parameters ?? config.rope_scaling ?? null;
  const theta = config.rope_parameters?.rope_theta ?? config.rope_theta ?? DEFAULTS.theta;
  if (typeof theta !== "number" || !(theta >= 1 && theta <= 1e12)) {
    throw new OatmillError(
      "invalid_config",
      `Cannot use rope_theta: it is ${JSON.stringify(theta)}, must be a number from 1 to 1e12`,
      "rope_theta",
    );
  }
  const dims = Math.floor(headDim * (config.partial_rotary_factor ?? 1));
  if (dims % 2 !== 0 || dims === 0) {
    throw new OatmillError(
      "invalid_config",
      `Cannot use partial_rotary_factor: it rotates ${dims} dimensions, must be an even number`,
      "partial_rotary_factor",
    );
  }
  return ropeSpec({
    dims,
    theta,
    maxPositions: config.max_position_embeddings ?? DEFAULTS.positions,
    scaling,
  });
}

/** @returns null when no token can be outside the window */
function windowOf(family: Family, config: ModelConfig, contextLength: number): number | null {
  const window = config.sliding_window ?? null;
  if (family.window === "never" || window === null || window >= contextLength) return null;
  if (family.window === "always") return window;
  const firstSliding = config.max_window_layers ?? 0;
  if (!config.use_sliding_window || firstSliding >= config.num_hidden_layers) return null;
  if (firstSliding === 0) return window;
  throw new OatmillError(
    "unsupported_architecture",
    `Cannot use a sliding window from layer ${firstSliding} on (max_window_layers): all layers or none are supported`,
  );
}

function biasesOf(family: Family, config: ModelConfig): LinearName[] {
  const holds = (rule: BiasRule): boolean => typeof rule === "boolean" ? rule : config[rule] === true;
  return (Object.keys(family.biases) as LinearName[]).filter((name) => holds(family.biases[name] ?? false));
}

/** Token ids out of numbers and lists of them; files name ids outside the vocabulary (-1), which never come up. */
function idsBelow(vocabSize: number, ...values: unknown[]): number[] {
  const ids = values.flat().filter((id): id is number =>
    Number.isInteger(id) && id as number >= 0 && id as number < vocabSize
  );
  return [...new Set(ids)];
}
