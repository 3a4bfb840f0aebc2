/** Opens a source model, whatever its format. Anyone may call it, on any thread; weights are read later, one by one. */
import { basename, join } from "node:path";
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { familyOfConfig } from "./families/registry.ts";
import { specFromConfig } from "./families/spec_from_config.ts";
import { weightLocations } from "./families/weight_names.ts";
import { IMAGE_PROCESSOR_FILE } from "./formats/artifact.ts";
import { CompressedTensors } from "./formats/compressed_tensors.ts";
import { readJsonFile } from "./formats/json_file.ts";
import { isPickleName, pickleRefused, refusePickles } from "./formats/pickle.ts";
import { openGguf } from "./open_gguf.ts";
import { readSentencePooling } from "./formats/sentence_pooling.ts";
import { floatFieldsOf } from "./formats/source_config.ts";
import { SafetensorsFolder } from "./formats/safetensors_folder.ts";
import { SourceCheckpoint } from "./source_checkpoint.ts";
import { readTokenizerFiles } from "./tokenizer_files.ts";

/** Configs are a few kB; some carry label tables. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

/**
 * @param path a Hugging Face folder (config.json + safetensors) or a .gguf file
 * @throws {OatmillError} invalid_config, invalid_checkpoint, unsupported_architecture, unsupported_format, invalid_tokenizer, invalid_chat_template
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const info = await Deno.stat(path).catch((cause) => {
    throw new OatmillError("invalid_checkpoint", `Cannot open "${path}": no such file or folder`, null, {
      cause,
    });
  });
  if (info.isDirectory) return await openFolder(path);
  if (path.toLowerCase().endsWith(".gguf")) return await openGguf(path);
  if (isPickleName(path)) throw pickleRefused(basename(path));
  throw new OatmillError(
    "unsupported_format",
    `Cannot open "${path}": unsupported format, wanted are a folder with config.json and safetensors, or a .gguf file`,
  );
}

async function openFolder(path: string): Promise<Checkpoint> {
  await refusePickles(path);
  const config = await readJsonFile(join(path, "config.json"), "invalid_config", MAX_CONFIG_BYTES);
  if (!config) throw new OatmillError("invalid_config", `Cannot open "${path}": config.json is missing`);
  const generation = await readJsonFile(
    join(path, "generation_config.json"),
    "invalid_config",
    MAX_CONFIG_BYTES,
  );
  const family = familyOfConfig(config);
  const pooling = family.encoder?.reads === "text" ? await readSentencePooling(path) : null;
  const spec = specFromConfig(config, { generation, family, pooling });
  const tokenizerFiles = await readTokenizerFiles(path);
  const imageProcessor = await readJsonFile(
    join(path, IMAGE_PROCESSOR_FILE),
    "invalid_config",
    MAX_CONFIG_BYTES,
  );
  const files = await SafetensorsFolder.open(path);
  try {
    const source = await CompressedTensors.over(files);
    const locations = weightLocations(spec, family.names, { source });
    const sourceConfig = { config, floatFields: await floatFieldsOf(join(path, "config.json")), generation };
    const beside = { tokenizerFiles, sourceConfig, imageProcessor };
    return new SourceCheckpoint({ path, spec, source, locations, ...beside });
  } catch (error) {
    files.close();
    throw error;
  }
}
