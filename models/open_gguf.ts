/** Opens a GGUF file as a checkpoint. */
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { variantOf } from "./families/config_fields.ts";
import type { BiasRule, Family, TensorNames } from "./families/family.ts";
import { GGUF_NAMES } from "./families/names.ts";
import { familyOfGguf } from "./families/registry.ts";
import { specFromConfig } from "./families/spec_from_config.ts";
import { weightLocations } from "./families/weight_names.ts";
import { GgufFile } from "./formats/gguf.ts";
import { configFromGguf, GGUF_FIELDS, ggufKey } from "./formats/gguf_config.ts";
import { tokenizerFromGguf } from "./formats/gguf_tokenizer.ts";
import type { JsonObject } from "./formats/json_file.ts";
import { SourceCheckpoint } from "./source_checkpoint.ts";
import { type LinearKind, linearKind, linearNames, type ModelSpec } from "./spec.ts";

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
    const known = familyOfGguf(architecture, source.name), gguf = known.gguf!;
    const config = configFromGguf(source.metadata, architecture, {
      tokenRows: source.info(`${GGUF_NAMES.embedding}.weight`)?.shape[0],
      tied: source.info(`${GGUF_NAMES.head}.weight`) === undefined,
      queryScalars: gguf.queryScalars,
    });
    config.rope_scaling = await longrope(source, architecture) ?? config.rope_scaling;
    const family = variantOf(known, config);
    const fieldName = (field: string) =>
      GGUF_FIELDS[field] ? ggufKey(GGUF_FIELDS[field], architecture) : field;
    const plain = specFromConfig(config, { source: `"${source.name}"`, family, fieldName });
    const { spec, divisors } = await withFileFacts(plain, gguf.names, source);
    const locations = weightLocations(spec, gguf.names, { permutedRows: gguf.permutedRows });
    refuseUnknown(source, locations, family.name);
    return new SourceCheckpoint({
      path,
      spec,
      source,
      locations,
      tokenizerFiles: tokenizerFromGguf(source.metadata),
      sourceConfig: {
        config: completeConfig(config, { family, spec, divisors }),
        floatFields: ["rms_norm_eps", "rope_theta", "factor"],
        generation: null,
      },
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
async function withFileFacts(spec: ModelSpec, { linear }: TensorNames, source: GgufFile): Promise<FileFacts> {
  const kinds = [...new Set(linearNames(spec).map(linearKind))];
  const tensorOf = (stored: TensorNames["linear"][LinearKind]) =>
    typeof stored === "object" ? stored.tensor : stored;
  const biases = kinds.filter((kind) => source.info(`blk.0.${tensorOf(linear[kind])}.bias`) !== undefined);
  const { rope } = spec.attention;
  if (!rope || !source.info("rope_freqs.weight")) return { spec: { ...spec, biases }, divisors: null };
  const divisors = await readDivisors(source, "rope_freqs.weight", rope.inverseFrequencies.length);
  const inverseFrequencies = rope.inverseFrequencies.map((frequency, i) => frequency / divisors[i]);
  const attention = { ...spec.attention, rope: { ...rope, inverseFrequencies } };
  return { spec: { ...spec, biases, attention }, divisors };
}

/** The config with what the tensors say, as a config.json could have said it: divisors of frequencies are longrope's. */
function completeConfig(
  config: JsonObject,
  { family, spec: { biases, contextLength }, divisors }: FileFacts & { readonly family: Family },
): JsonObject {
  const rules = Object.entries(family.biases) as [LinearKind, BiasRule][];
  const fields = rules.flatMap(([name, rule]) =>
    typeof rule === "string" ? [[rule, biases.includes(name)]] : []
  );
  const present = Object.entries(config).filter(([, value]) => value !== undefined && value !== null)
    .map(([field, value]) => [family.fields?.[field] ?? field, value]);
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

/** Divisors of rotary frequencies, for short texts and for long ones, stand in tensors of their own (Phi-3). */
async function longrope(source: GgufFile, architecture: string): Promise<JsonObject | null> {
  const count = source.info("rope_factors_long.weight")?.shape[0];
  if (count === undefined) return null;
  const divisors = async (name: string) => [...await readDivisors(source, name, count)];
  return {
    rope_type: "longrope",
    short_factor: await divisors("rope_factors_short.weight"),
    long_factor: await divisors("rope_factors_long.weight"),
    original_max_position_embeddings: source.metadata.get(
      `${architecture}.rope.scaling.original_context_length`,
    ),
    attention_factor: source.metadata.get(`${architecture}.rope.scaling.attn_factor`),
  };
}

async function readDivisors(source: GgufFile, name: string, count: number): Promise<Float32Array> {
  const shape = source.info(name)?.shape;
  if (shape?.length !== 1 || shape[0] !== count) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot use tensor "${name}": its shape is [${shape ?? "missing"}], wanted is [${count}]`,
    );
  }
  const divisors = await source.readFloat32(name, 0, count);
  if (!divisors.every((d) => d > 0 && Number.isFinite(d))) {
    throw new OatmillError(
      "non_finite_weights",
      `Cannot use tensor "${name}": its values must be finite and above 0`,
    );
  }
  return divisors;
}

/** Copies of what the config says, which old converters left in blocks. */
const IGNORED = /\.attn_rot_embd\b/;

/**
 * A model of another build under a known name (Falcon 40B's second norm) has tensors that nothing here would read: what it
 * computed without them would be wrong.
 */
function refuseUnknown(
  source: GgufFile,
  locations: ReadonlyMap<string, { readonly tensor: string }>,
  family: string,
): void {
  const used = new Set(locations.values().map(({ tensor }) => tensor));
  const unknown = source.names().find((name) =>
    name.startsWith("blk.0.") && !used.has(name) && !IGNORED.test(name)
  );
  if (unknown === undefined) return;
  throw new OatmillError(
    "unsupported_architecture",
    `Cannot run "${source.name}": ${family} has no tensor "${
      unknown.slice(0, 80)
    }"; a variant that is not known here`,
  );
}
