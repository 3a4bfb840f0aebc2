/** What stands beside exported weights. */
import { join } from "node:path";
import type { TokenizerFiles } from "../models/checkpoint.ts";
import { withFloatFields } from "../models/formats/source_config.ts";
import { writeTokenizerFiles } from "../models/tokenizer_files.ts";
import type { DenseModel } from "./dense_model.ts";
import type { FloatType } from "./float_types.ts";

const TORCH_NAMES = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

/** config.json with the type of the weights, generation_config.json and the tokenizer's files. */
export async function writeConfigs(folder: string, model: DenseModel, type: FloatType): Promise<void> {
  const field = "dtype" in model.config ? "dtype" : "torch_dtype"; // since transformers 5, before
  const config = { ...model.config, [field]: TORCH_NAMES[type] };
  await Deno.writeTextFile(join(folder, "config.json"), withFloatFields(config, model.floatFields));
  if (model.generation) await writeJson(join(folder, "generation_config.json"), model.generation);
  if (model.weights.tokenizerFiles) await writeTokenizer(folder, model.weights.tokenizerFiles);
}

/** A config that names no class gets the one which reads tokenizer.json alone. */
async function writeTokenizer(folder: string, files: TokenizerFiles): Promise<void> {
  const config = { tokenizer_class: "PreTrainedTokenizerFast", ...files.config };
  await writeTokenizerFiles(folder, { ...files, config });
}

export async function writeJson(path: string, value: unknown): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify(value, null, 2) + "\n");
}
