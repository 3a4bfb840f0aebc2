/**
 * Opens whatever a user calls a model (artifact folder, Hugging Face folder, .gguf or .onnx file) as an engine with its tokenizer.
 * Checkpoints are packed while they load, so dense models take the same path as compressed ones.
 */
import { OatmillError } from "../errors.ts";
import type { TokenizerFiles } from "../models/checkpoint.ts";
import type { EncoderModel } from "../models/classifier.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { type AnyHeader, isGraphArtifact } from "../models/formats/graph_artifact.ts";
import { isOnnxFile } from "../models/onnx/onnx_file.ts";
import { type DenseValues, packDense } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import type { ModelSpec } from "../models/spec.ts";
import { loadTokenizer, type Tokenizer } from "../models/tokenizer.ts";
import { encoderOf } from "./encoder.ts";
import { loadEngine } from "./engine.ts";
import { LoadTimes } from "./load_times.ts";
import { LongTexts } from "./long_texts.ts";
import type { Engine, EngineOptions } from "./types.ts";

export interface OpenedModel {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly engine: Engine;
  /** null: the model came without one; prompts are token ids then. */
  readonly tokenizer: Tokenizer | null;
  /** Reads long texts beside the HTTP thread; absent: the caller's own thread does. */
  readonly longTexts?: LongTexts;
  /** What it reads and answers when it is an encoder; null: it is a decoder. */
  readonly encoder: EncoderModel | null;
  /** null for a checkpoint. */
  readonly header: AnyHeader | null;
  /** How long its load took. */
  readonly times: LoadTimes;
}

export interface OpenModelOptions extends EngineOptions {
  /** How a checkpoint's weights are packed; an artifact's are what they are. */
  readonly values?: DenseValues;
}

/** @throws {OatmillError} what reading the files may throw */
export async function openModel(path: string, options: OpenModelOptions = {}): Promise<OpenedModel> {
  if (isOnnxFile(path) || (await isArtifact(path) && await isGraphArtifact(path))) {
    const { openGraphModel } = await import("./graph/graph_model.ts"); // few models need it
    const graph = await openGraphModel(path, options);
    return graph.header ? { ...graph, longTexts: new LongTexts(path) } : graph;
  }
  const { values = "f32", times = new LoadTimes(), ...engineOptions } = options;
  /** The tokenizer is built while the compute threads come up and read. */
  const open = async (
    model: PackedModel,
    files: TokenizerFiles | null,
    { checked }: { checked: boolean },
  ) => {
    let tokenizer: Tokenizer | null = null;
    const meanwhile = async () => {
      if (files) tokenizer = await times.time("tokenizer", () => loadTokenizer(files, { checked }));
    };
    const engine = await loadEngine(model, { ...engineOptions, times, meanwhile });
    const { name, spec, imageProcessor = null } = model;
    return { name, spec, tokenizer, engine, encoder: encoderOf(engine, { spec, imageProcessor }), times };
  };
  if (await isArtifact(path)) {
    const artifact = await times.time("header", () => openArtifact(path));
    const opened = await open(artifact, artifact.tokenizerFiles, { checked: true });
    return { ...opened, header: artifact.header, longTexts: new LongTexts(path) };
  }
  const { openCheckpoint } = await import("../models/open.ts"); // 45 modules: every format and family
  const checkpoint = await times.time("header", () => openCheckpoint(path));
  try {
    const packed = packDense(checkpoint, { values });
    return { ...await open(packed, checkpoint.tokenizerFiles, { checked: false }), header: null };
  } finally {
    checkpoint.close();
  }
}

/** The tokenizer, or invalid_tokenizer for what cannot be done without. */
export function needTokenizer(model: Pick<OpenedModel, "name" | "tokenizer">): Tokenizer {
  if (model.tokenizer) return model.tokenizer;
  throw new OatmillError("invalid_tokenizer", `Model "${model.name}" has no tokenizer: give token ids`);
}

/** Tokens that end a generation: the model's and the tokenizer's. */
export function stopIdsOf(model: Pick<OpenedModel, "spec" | "tokenizer">): number[] {
  return [...new Set([...model.spec.eosIds, ...model.tokenizer?.eosIds ?? []])];
}
