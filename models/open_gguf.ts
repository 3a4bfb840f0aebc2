/** Opens a GGUF file as a checkpoint. */
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { GGUF_NAMES } from "./families/names.ts";
import { familyOfGguf } from "./families/registry.ts";
import { specFromConfig } from "./families/spec_from_config.ts";
import { weightLocations } from "./families/weight_names.ts";
import { GgufFile } from "./formats/gguf.ts";
import { configFromGguf, GGUF_FIELDS, ggufKey } from "./formats/gguf_config.ts";
import { tokenizerFromGguf } from "./formats/gguf_tokenizer.ts";
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
    const spec = await withFileFacts(plain, source);
    const locations = weightLocations(spec, { ...GGUF_NAMES, linear: gguf.linear }, {
      permutedRows: gguf.permutedRows,
    });
    return new SourceCheckpoint({
      path,
      spec,
      source,
      locations,
      tokenizerFiles: tokenizerFromGguf(source.metadata),
    });
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Biases and llama 3 rope scaling stand in the tensors only. */
async function withFileFacts(spec: ModelSpec, source: GgufFile): Promise<ModelSpec> {
  const names = Object.keys(linearShapes(spec)) as LinearName[];
  const biases = names.filter((name) => source.info(`blk.0.${GGUF_NAMES.linear[name]}.bias`) !== undefined);
  const { rope } = spec.attention;
  if (!rope || !source.info("rope_freqs.weight")) return { ...spec, biases };
  const divisors = await readDivisors(source, rope.inverseFrequencies.length);
  const inverseFrequencies = rope.inverseFrequencies.map((frequency, i) => frequency / divisors[i]);
  return { ...spec, biases, attention: { ...spec.attention, rope: { ...rope, inverseFrequencies } } };
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
