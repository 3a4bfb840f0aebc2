/** Rotary frequencies as GGUF says them: a base, a linear factor, or divisors in `rope_freqs.weight`. */
import { isDeepStrictEqual } from "node:util";
import { OatmillError } from "../errors.ts";
import { isJsonObject } from "../models/formats/json_file.ts";
import type { DenseModel } from "./dense_model.ts";
import type { GgufEntry } from "./gguf_encoder.ts";

/** llama.cpp reads `rope_freqs.weight` of these alone. */
const WITH_DIVISORS = ["llama"];
/** transformers' default. */
const DEFAULT_THETA = 10_000;
/** Two ways to compute a frequency in f64. */
const ROUNDING = 1e-9;

interface RopeMetadata {
  readonly metadata: Record<string, GgufEntry>;
  /** null: none. */
  readonly divisors: readonly number[] | null;
}

/** @throws {OatmillError} unsupported_format for scaling that is neither */
export function ropeScaling({ weights: { spec }, config }: DenseModel, architecture: string): RopeMetadata {
  const { rope } = spec.attention;
  if (!rope) return { metadata: {}, divisors: null };
  const theta = thetaOf(config), { dims, inverseFrequencies, attentionFactor, long } = rope;
  const divisors = inverseFrequencies.map((frequency, i) => theta ** (-2 * i / dims) / frequency);
  const base = { [`${architecture}.rope.freq_base`]: { f32: theta } };
  const near = (value: number) => (divisor: number) => Math.abs(divisor - value) < ROUNDING * value;
  const alike = spec.blockAttention?.kinds.every((kind) => isDeepStrictEqual(kind.rope, rope)) ?? true;
  if (attentionFactor !== 1 || long || !alike) {
    throw refused("it changes with length or from block to block");
  }
  if (divisors.every(near(1))) return { metadata: base, divisors: null };
  if (divisors.every(near(divisors[0]))) {
    const linear = {
      [`${architecture}.rope.scaling.type`]: { string: "linear" },
      [`${architecture}.rope.scaling.factor`]: { f32: divisors[0] },
    };
    return { metadata: { ...base, ...linear }, divisors: null };
  }
  if (!WITH_DIVISORS.includes(architecture)) {
    throw refused(`${architecture} files have no divisors of frequencies`);
  }
  return { metadata: base, divisors };
}

/** The base of the unscaled frequencies. */
function thetaOf({ rope_theta: theta, rope_parameters: parameters }: DenseModel["config"]): number {
  const given = isJsonObject(parameters) ? parameters.rope_theta ?? theta : theta;
  return typeof given === "number" ? given : DEFAULT_THETA;
}

const refused = (why: string) =>
  new OatmillError("unsupported_format", `Cannot write the model's rotary positions as GGUF: ${why}`);
