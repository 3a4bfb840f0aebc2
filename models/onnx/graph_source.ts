/** An `.onnx` file with what lies beside it: config.json, preprocessor_config.json, the tokenizer. */
import { basename, dirname, join } from "node:path";
import type { TokenizerFiles } from "../checkpoint.ts";
import { CONFIG_FILE, PROCESSOR_FILE } from "../formats/graph_artifact.ts";
import { readJsonFile } from "../formats/json_file.ts";
import { readSentencePooling, type SentencePooling } from "../formats/sentence_pooling.ts";
import { readTokenizerFiles } from "../tokenizer_files.ts";
import { type GraphInput, graphInputs, type GraphReads, graphReads } from "./graph_inputs.ts";
import { type OnnxModel, openOnnx } from "./open_onnx.ts";

export interface GraphSource {
  readonly path: string;
  readonly model: OnnxModel;
  readonly inputs: readonly GraphInput[];
  readonly reads: GraphReads;
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly imageProcessor: Readonly<Record<string, unknown>> | null;
  readonly tokenizerFiles: TokenizerFiles | null;
  /** How states become one vector, where a file beside the graph says so. */
  readonly pooling: SentencePooling | null;
}

/** @throws {OatmillError} what `openOnnx()` throws, invalid_config, invalid_tokenizer, invalid_chat_template */
export async function openGraphSource(path: string): Promise<GraphSource> {
  const model = await openOnnx(path), inputs = graphInputs(model.graph);
  // Hubs keep graphs in a folder of their own, below the model's.
  const own = dirname(path), folders = basename(own) === "onnx" ? [own, dirname(own)] : [own];
  return {
    path,
    model,
    inputs,
    reads: graphReads(inputs),
    config: await first(folders, (folder) => readJsonFile(join(folder, CONFIG_FILE), "invalid_config")),
    imageProcessor: await first(
      folders,
      (folder) => readJsonFile(join(folder, PROCESSOR_FILE), "invalid_config"),
    ),
    tokenizerFiles: await first(folders, readTokenizerFiles),
    pooling: await first(folders, readSentencePooling),
  };
}

async function first<T>(
  folders: readonly string[],
  read: (folder: string) => Promise<T | null>,
): Promise<T | null> {
  for (const folder of folders) {
    const found = await read(folder);
    if (found) return found;
  }
  return null;
}

/** A whole number above 0 of the config.json beside a graph, which nobody has checked; null: it has none. */
export function positiveField(config: GraphSource["config"], name: string): number | null {
  const value = config && Object.hasOwn(config, name) ? config[name] : null;
  return Number.isSafeInteger(value) && value as number > 0 ? value as number : null;
}
