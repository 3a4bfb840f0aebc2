/** All families, and which one a checkpoint names. */
import { OatmillError } from "../../errors.ts";
import { variantOf } from "./config_fields.ts";
import type { Family } from "./family.ts";
import { bert } from "./bert.ts";
import { clip, clipVision } from "./clip_vision.ts";
import { deit } from "./deit.ts";
import { dinov2 } from "./dinov2.ts";
import { dinov2Registers } from "./dinov2_registers.ts";
import { distilbert } from "./distilbert.ts";
import { falcon } from "./falcon.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3Text } from "./gemma3_text.ts";
import { gpt2 } from "./gpt2.ts";
import { gptNeox } from "./gpt_neox.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { mixtral } from "./mixtral.ts";
import { opt } from "./opt.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import { roberta } from "./roberta.ts";
import { starcoder2 } from "./starcoder2.ts";
import { vit } from "./vit.ts";

export const FAMILIES: readonly Family[] = [
  llama,
  mistral,
  mixtral,
  qwen2,
  qwen3,
  phi3,
  gemma,
  gemma2,
  gemma3Text,
  opt,
  gpt2,
  gptNeox,
  falcon,
  starcoder2,
  vit,
  deit,
  dinov2,
  dinov2Registers,
  clipVision,
  clip,
  bert,
  roberta,
  distilbert,
];

/**
 * The family of a config.json, with what the config says of it.
 * @throws {OatmillError} invalid_config (names none), unsupported_architecture
 */
export function familyOfConfig(config: Readonly<Record<string, unknown>>): Family {
  const { model_type: modelType, architectures } = config;
  const architecture = Array.isArray(architectures) ? architectures[0] : undefined;
  const named = modelType ?? architecture;
  if (typeof named !== "string") {
    throw new OatmillError(
      "invalid_config",
      `Cannot read config.json: model_type is ${JSON.stringify(named) ?? "missing"}, must be a string`,
    );
  }
  const family = FAMILIES.find((f) =>
    f.modelTypes.includes(named) || (!modelType && f.architectures.includes(named))
  );
  if (!family) throw unsupported(`model_type "${named.slice(0, 80)}" of config.json`);
  return variantOf(family, config);
}

/**
 * The family of a GGUF file's `general.architecture`.
 * @param file its name, for messages
 * @throws {OatmillError} unsupported_architecture
 */
export function familyOfGguf(architecture: string, file: string): Family {
  const family = FAMILIES.find((f) => f.gguf?.architecture === architecture);
  if (!family) throw unsupported(`architecture "${architecture.slice(0, 80)}" of "${file}"`);
  return family;
}

function unsupported(what: string): OatmillError {
  const known = FAMILIES.map((f) => f.name).join(", ");
  return new OatmillError("unsupported_architecture", `Cannot run ${what}: unsupported, known are ${known}`);
}
