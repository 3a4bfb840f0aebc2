/**
 * adapter_config.json of PEFT: what is taken of it, and what is refused because the adapter would then be more than products
 * B A on linear layers. Fields: https://huggingface.co/docs/peft/package_reference/lora
 */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import { MAX_LORA_RANK } from "../adapter.ts";
import { patternProblem } from "../pattern_guard.ts";

export const ADAPTER_CONFIG = "adapter_config.json";

/** Patterns are tried on every module: real files have a handful. */
const MAX_PATTERNS = 1024;
const MAX_PATTERN_CHARS = 1000;

/** Ways of beginning that leave the model's weights alone; the others (PiSSA, LoftQ) train on changed ones. */
const PLAIN_BEGINNINGS: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal"];

const rankSchema = z.int().min(1).max(MAX_LORA_RANK);
const patterns = <T extends z.ZodType>(value: T) =>
  z.record(z.string().max(MAX_PATTERN_CHARS), value).nullish().transform((record) => record ?? {})
    .refine((record) => Object.keys(record).length <= MAX_PATTERNS, `at most ${MAX_PATTERNS} patterns`);

const configSchema = z.looseObject({
  peft_type: z.literal("LORA"),
  r: rankSchema,
  lora_alpha: z.number(),
  use_rslora: z.boolean().nullish(),
  rank_pattern: patterns(rankSchema),
  alpha_pattern: patterns(z.number()),
  target_modules: z.union([z.string(), z.array(z.string()).max(100_000)]).nullish(),
  layers_to_transform: z.union([z.int(), z.array(z.int()).max(100_000)]).nullish(),
  base_model_name_or_path: z.string().max(4096).nullish(),
});

export interface AdapterConfig {
  /** What the adapter was trained on; null: the file does not say. */
  readonly baseModel: string | null;
  /** Rank of a module, by its path in the model ("model.layers.0.self_attn.q_proj"). */
  rankOf(module: string): number;
  /** What B A is multiplied by there: alpha / r, rank-stabilised alpha / √r (arXiv 2312.03732). */
  scaleOf(module: string): number;
  /** Why PEFT would leave this module of a block out; null: it would not. */
  leavesOut(module: string, block: number): string | null;
}

/** What makes more of an adapter than B A, and the words for it. */
const REFUSED: readonly (readonly [field: string, what: string])[] = [
  ["use_dora", "DoRA scales whole weights"],
  ["lora_bias", "biases of B"],
  ["modules_to_save", "whole modules trained along"],
  ["target_parameters", "parameters that are no linear layers"],
  ["trainable_token_indices", "rows of the embedding trained along"],
  ["alora_invocation_tokens", "an adapter that begins at certain tokens"],
  ["layer_replication", "blocks that are repeated"],
  ["use_qalora", "QALoRA pools inputs"],
  ["arrow_config", "adapters that are chosen by token"],
  ["kasa_config", "KaSA takes from the model's own weights"],
  ["use_bdlora", "factors of diagonal blocks"],
];

const isSet = (value: unknown): boolean =>
  value !== undefined && value !== null && value !== false &&
  !(typeof value === "object" && Object.keys(value).length === 0);

const refused = (why: string) =>
  new OatmillError("invalid_adapter", `Cannot use ${ADAPTER_CONFIG}: ${why}`, "adapter");

/** @throws {OatmillError} invalid_adapter, which names the field */
export function readAdapterConfig(json: Readonly<Record<string, unknown>>): AdapterConfig {
  refuseKinds(json);
  const parsed = configSchema.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw refused(`${path.join(".") || "the file"}: ${message}`);
  }
  const { r, lora_alpha, use_rslora, rank_pattern, alpha_pattern, ...config } = parsed.data;
  const ranks = patternTable(rank_pattern, "rank_pattern"),
    alphas = patternTable(alpha_pattern, "alpha_pattern");
  const rankOf = (module: string) => ranks(module) ?? r;
  return {
    baseModel: config.base_model_name_or_path ?? null,
    rankOf,
    scaleOf(module) {
      const rank = rankOf(module);
      return (alphas(module) ?? lora_alpha) / (use_rslora ? Math.sqrt(rank) : rank);
    },
    leavesOut: (module, block) => leftOut(module, block, config),
  };
}

function refuseKinds(json: Readonly<Record<string, unknown>>): void {
  const { peft_type: type, bias, init_lora_weights: beginning = true } = json;
  if (type !== "LORA") throw refused(`peft_type is ${shown(type)}, only "LORA" is known here`);
  const kind = REFUSED.find(([field]) => isSet(json[field]));
  if (kind) {
    throw refused(`${kind[0]} is ${shown(json[kind[0]])} (${kind[1]}); train without, or merge it with PEFT`);
  }
  if (bias !== undefined && bias !== "none") {
    throw refused(`bias is ${shown(bias)}, only "none" is known here: biases are not part of B A`);
  }
  if (!PLAIN_BEGINNINGS.includes(beginning)) {
    throw refused(
      `init_lora_weights is ${shown(beginning)}, which changes the model's own weights before training; ` +
        "save it with PEFT's path_initial_model_for_weight_conversion",
    );
  }
}

/** What fits a module first, in the file's order, is its value: PEFT's `get_pattern_key`. */
function patternTable(
  table: Readonly<Record<string, number>>,
  field: string,
): (module: string) => number | undefined {
  const rows = Object.entries(table).map(([key, value]) => {
    const problem = patternProblem(key);
    if (problem) throw refused(`${field}: ${shown(key)}: ${problem}`);
    try {
      return { pattern: new RegExp(`^(?:.*\\.)?(?:${key})$`), value };
    } catch {
      throw refused(`${field}: ${shown(key)} is no regular expression`);
    }
  });
  return (module) => rows.find(({ pattern }) => pattern.test(module))?.value;
}

/** A list names ends of paths; what a regular expression of Python's means is left to the tensors that are there. */
function leftOut(
  module: string,
  block: number,
  { target_modules: targets, layers_to_transform: blocks }: Pick<
    z.infer<typeof configSchema>,
    "target_modules" | "layers_to_transform"
  >,
): string | null {
  if (Array.isArray(targets) && !targets.some((t) => module === t || module.endsWith(`.${t}`))) {
    return `target_modules is ${shown(targets)}`;
  }
  const list = typeof blocks === "number" ? [blocks] : blocks;
  return list && !list.includes(block) ? `layers_to_transform is ${shown(blocks)}` : null;
}

const shown = (value: unknown): string => (JSON.stringify(value) ?? "missing").slice(0, 200);
