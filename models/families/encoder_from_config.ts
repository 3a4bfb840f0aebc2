/** What a config says about the two ends of an encoder. */
import { OatmillError } from "../../errors.ts";
import { type EncoderSpec, gridOf, type PatchSpec, positionRows, prefixLength } from "../encoder_spec.ts";
import type { SentencePooling } from "../formats/sentence_pooling.ts";
import type { ModelConfig } from "./config_schema.ts";
import type { EncoderFamily, Family } from "./family.ts";

/** Tokens and patches that an image may have, whatever the model's own size: a ViT-B/16 then reads 720 x 720 pixels. */
const IMAGE_TOKENS = 2048;
/** More than this a model's own size must not have. */
const MAX_IMAGE_TOKENS = 4096;
/** Labels of a config that names none, as in transformers. */
const UNNAMED_LABELS = { 0: "LABEL_0", 1: "LABEL_1" };

interface EncoderOptions {
  readonly architecture: string;
  /** How messages call the config. */
  readonly source: string;
  readonly pooling: SentencePooling | null;
}

/** null for a decoder. @throws {OatmillError} invalid_config */
export function encoderFromConfig(
  { encoder: family, names }: Family,
  config: ModelConfig,
  { architecture, source, pooling }: EncoderOptions,
): EncoderSpec | null {
  if (!family) return null;
  const classifier = family.classifiers[architecture] ?? null;
  const pooled = classifier === "pooler" || (!classifier && family.pooling === "pooler");
  return {
    patches: family.reads === "images" ? patchesOf(family, config, source) : null,
    tokenTypes: names.encoder?.tokenTypes ? config.type_vocab_size ?? 0 : 0,
    embeddingNorm: family.embeddingNorm ?? false,
    pooling: classifier ? (pooled ? "pooler" : "cls") : pooling?.pooling ?? family.pooling,
    pooler: pooled ? family.pooler ?? null : null,
    normsPooled: family.normsPooled ?? false,
    projection: family.projected?.includes(architecture) ? config.projection_dim ?? null : null,
    unitLength: pooling?.unitLength ?? false,
    classifier,
    labels: classifier ? labelsOf(config, source) : [],
  };
}

function patchesOf(
  family: EncoderFamily,
  { image_size, patch_size, num_register_tokens }: ModelConfig,
  source: string,
): PatchSpec {
  const [height, width] = typeof image_size === "number" ? [image_size, image_size] : image_size ?? [0, 0];
  const size = patch_size ?? 0;
  if (size < 1 || Math.min(height, width) < size) {
    throw new OatmillError(
      "invalid_config",
      `Cannot use ${source}: image_size is ${height} x ${width} with patch_size ${size}, wanted is a whole patch or more`,
      "image_size",
    );
  }
  return {
    height,
    width,
    size,
    bias: family.patchBias ?? true,
    distillation: family.distillation ?? false,
    registers: num_register_tokens ?? 0,
    antialias: family.antialias ?? false,
  };
}

/** Most tokens and patches of an image. @throws {OatmillError} invalid_config */
export function imageTokens(patches: PatchSpec, source: string): number {
  const own = positionRows(patches) + patches.registers;
  if (own <= MAX_IMAGE_TOKENS) return Math.max(own, IMAGE_TOKENS);
  const { rows, columns } = gridOf(patches, patches);
  throw new OatmillError(
    "invalid_config",
    `Cannot use ${source}: image_size makes ${rows} x ${columns} patches, at most ${
      MAX_IMAGE_TOKENS - prefixLength(patches)
    } are allowed`,
    "image_size",
  );
}

/** By number. @throws {OatmillError} invalid_config: a number is missing */
function labelsOf({ id2label }: ModelConfig, source: string): string[] {
  const labels: Readonly<Record<string, string>> = id2label ?? UNNAMED_LABELS;
  return Array.from({ length: Object.keys(labels).length }, (_, i) => {
    if (Object.hasOwn(labels, String(i))) return labels[i];
    throw new OatmillError(
      "invalid_config",
      `Cannot use ${source}: id2label names no label ${i}`,
      "id2label",
    );
  });
}
