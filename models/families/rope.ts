/**
 * Rotary frequencies with the scaling rules of config.json, as transformers computes them
 * (src/transformers/modeling_rope_utils.py).
 */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { RopeSpec } from "../spec.ts";

const factor = z.number().min(1).max(1e6);
const positions = z.int().min(1).max(2 ** 30);
const divisors = z.array(z.number().positive().max(1e6)).max(2048);
const optionalNumber = z.number().positive().max(1e6).nullish();

const scalingSchemas = {
  default: z.object({ factor: factor.nullish() }),
  linear: z.object({ factor }),
  dynamic: z.object({ factor }),
  llama3: z.object({
    factor,
    low_freq_factor: z.number().positive(),
    high_freq_factor: z.number().positive(),
    original_max_position_embeddings: positions,
  }).refine((s) => s.high_freq_factor > s.low_freq_factor, "high_freq_factor must be above low_freq_factor"),
  yarn: z.object({
    factor,
    original_max_position_embeddings: positions.nullish(),
    attention_factor: optionalNumber,
    beta_fast: optionalNumber,
    beta_slow: optionalNumber,
    mscale: optionalNumber,
    mscale_all_dim: optionalNumber,
    truncate: z.boolean().nullish(),
  }),
  longrope: z.object({
    short_factor: divisors,
    long_factor: divisors,
    factor: factor.nullish(),
    original_max_position_embeddings: positions.nullish(),
    attention_factor: optionalNumber,
  }),
} as const;
/** Names that kinds had before. */
const FORMER_NAMES: Readonly<Record<string, string>> = { su: "longrope" };
type Scaling = {
  [K in keyof typeof scalingSchemas]: { kind: K } & z.infer<typeof scalingSchemas[K]>;
}[keyof typeof scalingSchemas];

export interface RopeInput {
  /** Rotated dimensions of a head (even). */
  readonly dims: number;
  readonly theta: number;
  readonly maxPositions: number;
  /** `original_max_position_embeddings` where it stands beside the scaling (phi3). */
  readonly originalPositions?: number | null;
  /** `rope_scaling` or `rope_parameters`; null = plain. */
  readonly scaling: Readonly<Record<string, unknown>> | null;
}

/**
 * "dynamic" equals plain frequencies up to `max_position_embeddings`, which is all the context the spec grants.
 * @throws {OatmillError} invalid_config (values), unsupported_architecture (a kind not known here)
 */
export function ropeSpec(input: RopeInput): RopeSpec {
  const { dims, theta } = input;
  const plain = Array.from({ length: dims / 2 }, (_, i) => theta ** (-2 * i / dims));
  const scaling = parseScaling(input.scaling);
  switch (scaling.kind) {
    case "default":
    case "dynamic":
      return { dims, inverseFrequencies: plain, attentionFactor: 1 };
    case "linear":
      return { dims, inverseFrequencies: plain.map((f) => f / scaling.factor), attentionFactor: 1 };
    case "llama3":
      return { dims, inverseFrequencies: plain.map((f) => llama3Frequency(f, scaling)), attentionFactor: 1 };
    case "yarn":
      return yarn(input, plain, scaling);
    case "longrope":
      return longrope(input, plain, scaling);
  }
}

function parseScaling(value: RopeInput["scaling"]): Scaling {
  if (!value) return { kind: "default" };
  const given = value.rope_type ?? value.type ?? "default";
  const kind = typeof given === "string" && Object.hasOwn(FORMER_NAMES, given) ? FORMER_NAMES[given] : given;
  if (typeof kind !== "string" || !Object.hasOwn(scalingSchemas, kind)) {
    throw new OatmillError(
      "unsupported_architecture",
      `Cannot use rope_scaling of type ${JSON.stringify(kind)?.slice(0, 80)}: known are ${
        Object.keys(scalingSchemas).join(", ")
      }`,
    );
  }
  const parsed = scalingSchemas[kind as Scaling["kind"]].safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue.path.join(".") || "its numbers";
    throw new OatmillError(
      "invalid_config",
      `Cannot use rope_scaling: ${field} is ${JSON.stringify(value[field]) ?? "missing"}: ${issue.message}`,
    );
  }
  // The schema was chosen by `kind`, so kind and fields belong together.
  return { kind, ...parsed.data } as Scaling;
}

function llama3Frequency(frequency: number, s: Extract<Scaling, { kind: "llama3" }>): number {
  const length = s.original_max_position_embeddings;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < length / s.high_freq_factor) return frequency;
  if (wavelength > length / s.low_freq_factor) return frequency / s.factor;
  const smooth = (length / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

/** YaRN (arXiv 2309.00071): low frequencies interpolated, high ones kept, a ramp between. */
function yarn(
  { dims, theta, maxPositions }: RopeInput,
  plain: readonly number[],
  s: Extract<Scaling, { kind: "yarn" }>,
): RopeSpec {
  const length = s.original_max_position_embeddings ?? maxPositions;
  const dimensionOf = (rotations: number) =>
    dims * Math.log(length / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
  const [floor, ceil] = s.truncate === false ? [(x: number) => x, (x: number) => x] : [Math.floor, Math.ceil];
  const low = Math.max(floor(dimensionOf(s.beta_fast ?? 32)), 0);
  const high = Math.min(ceil(dimensionOf(s.beta_slow ?? 1)), dims - 1);
  const width = high === low ? 0.001 : high - low; // as the reference, against a division by zero
  const inverseFrequencies = plain.map((f, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / width));
    return f / s.factor * ramp + f * (1 - ramp);
  });
  const mscale = (weight: number) => s.factor <= 1 ? 1 : 0.1 * weight * Math.log(s.factor) + 1;
  const attentionFactor = s.attention_factor ??
    (s.mscale && s.mscale_all_dim ? mscale(s.mscale) / mscale(s.mscale_all_dim) : mscale(1));
  return { dims, inverseFrequencies, attentionFactor };
}

/**
 * LongRoPE (arXiv 2402.13753): a divisor for each frequency, one list for sequences up to the original length, one for
 * longer ones.
 */
function longrope(
  { dims, maxPositions, originalPositions }: RopeInput,
  plain: readonly number[],
  s: Extract<Scaling, { kind: "longrope" }>,
): RopeSpec {
  const original = s.original_max_position_embeddings ?? originalPositions ?? maxPositions;
  const growth = s.factor ?? maxPositions / original;
  for (const [name, list] of Object.entries({ short_factor: s.short_factor, long_factor: s.long_factor })) {
    if (list.length === dims / 2) continue;
    throw new OatmillError(
      "invalid_config",
      `Cannot use rope_scaling: ${name} has ${list.length} numbers, must have ${dims / 2}`,
    );
  }
  const divided = (by: readonly number[]) => plain.map((f, i) => f / by[i]);
  const alike = s.short_factor.every((divisor, i) => divisor === s.long_factor[i]);
  return {
    dims,
    inverseFrequencies: divided(s.short_factor),
    attentionFactor: s.attention_factor ??
      (growth <= 1 ? 1 : Math.sqrt(1 + Math.log(growth) / Math.log(original))),
    ...alike ? {} : { long: { beyond: original, inverseFrequencies: divided(s.long_factor) } },
  };
}
