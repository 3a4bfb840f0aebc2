/** What can be exported: an artifact or a checkpoint with dense weights at hand, and a config that describes exactly them. */
import { basename } from "node:path";
import { OatmillError } from "../errors.ts";
import { LinalgRuntime } from "../compress/linalg/runtime.ts";
import type { Checkpoint, SourceConfig } from "../models/checkpoint.ts";
import type { Family } from "../models/families/family.ts";
import { familyOfConfig, specFromConfig } from "../models/families/mod.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { openTensors } from "../models/formats/artifact_tensors.ts";
import { isGraphArtifact } from "../models/formats/graph_artifact.ts";
import { type JsonObject, readJsonFile } from "../models/formats/json_file.ts";
import { floatFieldsOf, readSourceConfig } from "../models/formats/source_config.ts";
import { openCheckpoint } from "../models/open.ts";
import type { ModelSpec } from "../models/spec.ts";
import { DenseWeights } from "./dense_weights.ts";
import { differentField } from "./same_spec.ts";

export interface DenseModel extends AsyncDisposable {
  readonly name: string;
  readonly weights: Checkpoint;
  /** Its parts, when it is an artifact. */
  readonly parts: DenseWeights | null;
  readonly family: Family;
  /** config.json of the dense weights. */
  readonly config: JsonObject;
  readonly floatFields: SourceConfig["floatFields"];
  readonly generation: SourceConfig["generation"];
}

/**
 * @param path artifact folder, Hugging Face folder or .gguf file
 * @param options.config a config.json, or the source model, instead of the config that the artifact holds
 * @throws {OatmillError} what opening throws; invalid_config when the config is missing or describes another model;
 *   unsupported_format for models that are no decoders
 */
export async function openDenseModel(
  path: string,
  { config }: { readonly config?: string } = {},
): Promise<DenseModel> {
  const { weights, parts, close } = await openWeights(path);
  try {
    const source = config === undefined ? weights.sourceConfig : await readConfig(config);
    if (!source) {
      throw new OatmillError(
        "invalid_config",
        `Cannot export "${path}": it does not say which config.json it was made from; give it, or its source model (--config)`,
      );
    }
    const { spec } = weights;
    if (!spec.attention.causal) throw decodersOnly(path);
    const family = familyOfConfig(source.config), dense = denseConfig(source.config, spec);
    requireSame(spec, specFromConfig(dense, { family, generation: source.generation }), path);
    const rest = { family, config: dense, floatFields: source.floatFields, generation: source.generation };
    return { name: basename(path), weights, parts, ...rest, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

const decodersOnly = (path: string) =>
  new OatmillError("unsupported_format", `Cannot export "${path}": only decoders can be exported`);

interface OpenedWeights {
  readonly weights: Checkpoint;
  readonly parts: DenseWeights | null;
  close(): Promise<void>;
}

async function openWeights(path: string): Promise<OpenedWeights> {
  if (!await isArtifact(path)) {
    const weights = await openCheckpoint(path);
    return { weights, parts: null, close: () => Promise.resolve(weights.close()) };
  }
  if (await isGraphArtifact(path)) throw decodersOnly(path);
  const artifact = await openArtifact(path), sourceConfig = await readSourceConfig(path);
  const linalg = await LinalgRuntime.create(navigator.hardwareConcurrency);
  const reader = await openTensors(artifact);
  const close = async () => {
    await linalg.close();
    await reader[Symbol.asyncDispose]();
  };
  try {
    const parts = new DenseWeights(artifact, { reader, linalg, sourceConfig });
    return { weights: parts, parts, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @param path a config.json, or a model that was the source */
async function readConfig(path: string): Promise<SourceConfig | null> {
  if (!path.endsWith(".json")) {
    const model = await openCheckpoint(path);
    model.close();
    return model.sourceConfig ?? null;
  }
  const config = await readJsonFile(path, "invalid_config");
  if (config) return { config, floatFields: await floatFieldsOf(path), generation: null };
  throw new OatmillError("invalid_config", `Cannot read "${path}": no such file`);
}

/** How weights are stored, which no longer holds. */
const STORAGE_FIELDS = ["quantization_config", "compression_config", "sparsity_config"];

/** An embedding of another width than the model was multiplied into it: once for the embedding, once for the head. */
function denseConfig(source: SourceConfig["config"], spec: ModelSpec): JsonObject {
  const config = Object.fromEntries(
    Object.entries(source).filter(([field]) => !STORAGE_FIELDS.includes(field)),
  );
  const width = config.word_embed_proj_dim ?? spec.hiddenSize;
  return width === spec.hiddenSize
    ? config
    : { ...config, word_embed_proj_dim: spec.hiddenSize, tie_word_embeddings: false };
}

function requireSame(spec: ModelSpec, described: ModelSpec, path: string): void {
  const field = differentField(spec, described);
  if (field === null) return;
  const shown = (value: unknown) => JSON.stringify(value)?.slice(0, 200) ?? "missing";
  const of = (model: ModelSpec) => shown(model[field as keyof ModelSpec]);
  throw new OatmillError(
    "invalid_config",
    `Cannot export "${path}": its config.json describes another model: ${field} would be ${
      of(described)
    }, is ${of(spec)}`,
    field,
  );
}
