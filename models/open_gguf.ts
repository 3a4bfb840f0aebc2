/** Opens a GGUF file as a checkpoint. */
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { BiasRule, Family } from "./families/family.ts";
import { GGUF_NAMES } from "./families/names.ts";
import { familyOfGguf } from "./families/registry.ts";
import { specFromConfig } from "./families/spec_from_config.ts";
import { weightLocations } from "./families/weight_names.ts";
import { GgufFile } from "./formats/gguf.ts";
import { configFromGguf, GGUF_FIELDS, ggufKey } from "./formats/gguf_config.ts";
import { tokenizerFromGguf } from "./formats/gguf_tokenizer.ts";
import type { JsonObject } from "./formats/json_file.ts";
import { SourceCheckpoint } from "./source_checkpoint.ts";
import { type LinearName, linearShapes, type ModelSpec } from "./spec.ts";

/** @throws {OatmillError} as `openCheckpoint()` */
export async function openGguf(path: string): Promise<Checkpoint> {
  const source = await GgufFile.open(path);
  try {
    const architecture = source.metadata.get("general.architecture");
    if (typeof architecture !== "string") {
      throw new OatmillError(
        "invalid_config",
        `Cannot use "${source.name}": general.architecture is missing or no string`,
      );
    }
    const family = familyOfGguf(architecture);
    const gguf = family.gguf!;
    const config = configFromGguf(source.metadata, architecture, {
      tokenRows: source.info(`${GGUF_NAMES.embedding}.weight`)?.shape[0],
      tied: source.info(`${GGUF_NAMES.head}.weight`) === undefined,
    });
    const fieldName = (field: string) =>
      GGUF_FIELDS[field] ? ggufKey(GGUF_FIELDS[field], architecture) : field;
    const plain = specFromConfig(config, { source: `"${source.name}"`, family, fieldName });
    const { spec, divisors } = await withFileFacts(plain, source);
    const locations = weightLocations(spec, { ...GGUF_NAMES, linear: gguf.linear }, {
      permutedRows: gguf.permutedRows,
    });
    return new SourceCheckpoint({
      path,
      spec,
      source,
      locations,
      tokenizerFiles: tokenizerFromGguf(source.metadata),
      sourceConfig: { config: completeConfig(config, { family, spec, divisors }), generation: null },
    });
  } catch (error) {
    source.close();
    throw error;
  }
}

interface FileFacts {
  readonly spec: ModelSpec;
  /** Of the rotary frequencies, where the file has some. */
  readonly divisors: Float32Array | null;
}

/** Biases and llama 3 rope scaling stand in the tensors only. */
async function withFileFacts(spec: ModelSpec, source: GgufFile): Promise<FileFacts> {
  const names = Object.keys(linearShapes(spec)) as LinearName[];
  const biases = names.filter((name) => source.info(`blk.0.${GGUF_NAMES.linear[name]}.bias`) !== undefined);
  const { rope } = spec.attention;
  if (!rope || !source.info("rope_freqs.weight")) return { spec: { ...spec, biases }, divisors: null };
  const divisors = await readDivisors(source, rope.inverseFrequencies.length);
  const inverseFrequencies = rope.inverseFrequencies.map((frequency, i) => frequency / divisors[i]);
  const attention = { ...spec.attention, rope: { ...rope, inverseFrequencies } };
  return { spec: { ...spec, biases, attention }, divisors };
}

/** The config with what the tensors say, as a config.json could have said it: divisors of frequencies are longrope's. */
function completeConfig(
  config: JsonObject,
  { family, spec: { biases, contextLength }, divisors }: FileFacts & { readonly family: Family },
): JsonObject {
  const rules = Object.entries(family.biases) as [LinearName, BiasRule][];
  const fields = rules.flatMap(([name, rule]) =>
    typeof rule === "string" ? [[rule, biases.includes(name)]] : []
  );
  const present = Object.entries(config).filter(([, value]) => value !== undefined && value !== null);
  const factors = divisors && [...divisors];
  return {
    architectures: family.architectures.slice(0, 1),
    model_type: family.modelTypes[0],
    ...Object.fromEntries(present),
    ...Object.fromEntries(fields),
    ...factors && {
      rope_scaling: {
        rope_type: "longrope",
        short_factor: factors,
        long_factor: factors,
        attention_factor: 1,
        original_max_position_embeddings: contextLength,
      },
    },
  };
}

async function readDivisors(source: GgufFile, count: number): Promise<Float32Array> {
  const { shape } = source.info("rope_freqs.weight")!;
  if (shape.length !== 1 || shape[0] !== count) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot use tensor "rope_freqs.weight": its shape is [${shape}], wanted is [${count}]`,
    );
  }
  const divisors = await source.readFloat32("rope_freqs.weight", 0, count);
  if (!divisors.every((d) => d > 0 && Number.isFinite(d))) {
    throw new OatmillError(
      "non_finite_weights",
      `Cannot use tensor "rope_freqs.weight": its values must be finite and above 0`,
    );
  }
  return divisors;
}
