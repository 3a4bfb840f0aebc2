/**
 * Opens whatever a user calls a model (artifact folder, Hugging Face folder, .gguf file) as an engine with its tokenizer.
 * Checkpoints are packed while they load, so dense models take the same path as compressed ones.
 */
import { OatmillError } from "../errors.ts";
import type { TokenizerFiles } from "../models/checkpoint.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import type { ArtifactHeader } from "../models/formats/artifact_header.ts";
import { openCheckpoint } from "../models/open.ts";
import { type DenseValues, packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { loadTokenizer, type Tokenizer } from "../models/tokenizer.ts";
import { loadEngine } from "./engine.ts";
import type { Engine, EngineOptions } from "./types.ts";

export interface OpenedModel {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly engine: Engine;
  /** null: the model came without one; prompts are token ids then. */
  readonly tokenizer: Tokenizer | null;
  /** null for a checkpoint. */
  readonly header: ArtifactHeader | null;
}

export interface OpenModelOptions extends EngineOptions {
  /** How a checkpoint's weights are packed; an artifact's are what they are. */
  readonly values?: DenseValues;
}

/** @throws {OatmillError} what reading the files may throw */
export async function openModel(path: string, options: OpenModelOptions = {}): Promise<OpenedModel> {
  const { values = "f32", ...engineOptions } = options;
  if (await isArtifact(path)) {
    const artifact = await openArtifact(path);
    const rest = describe(artifact, artifact.tokenizerFiles);
    return { ...rest, engine: await loadEngine(artifact, engineOptions), header: artifact.header };
  }
  const checkpoint = await openCheckpoint(path);
  try {
    const packed = packDense(checkpoint, { values });
    const rest = describe(packed, checkpoint.tokenizerFiles);
    return { ...rest, engine: await loadEngine(packed, engineOptions), header: null };
  } finally {
    checkpoint.close();
  }
}

/** All but the engine, before it: what fails here must not leave its threads running. */
const describe = (model: { name: string; spec: ModelSpec }, files: TokenizerFiles | null) => ({
  name: model.name,
  spec: model.spec,
  tokenizer: files === null ? null : loadTokenizer(files),
});

/** The tokenizer, or invalid_tokenizer for what cannot be done without. */
export function needTokenizer(model: Pick<OpenedModel, "name" | "tokenizer">): Tokenizer {
  if (model.tokenizer) return model.tokenizer;
  throw new OatmillError("invalid_tokenizer", `Model "${model.name}" has no tokenizer: give token ids`);
}

/** Tokens that end a generation: the model's and the tokenizer's. */
export function stopIdsOf(model: Pick<OpenedModel, "spec" | "tokenizer">): number[] {
  return [...new Set([...model.spec.eosIds, ...model.tokenizer?.eosIds ?? []])];
}
