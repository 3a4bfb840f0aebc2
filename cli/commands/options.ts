/** Options that several commands have. */
import { Option } from "commander";
import { KV_FORMATS } from "../../kernels/kv_layout.ts";
import { DENSE_VALUES } from "../../models/recipe.ts";
import { integer } from "./arguments.ts";

/** What `--adapter` names. */
export const PEFT_FOLDER =
  "LoRA adapter: PEFT's folder, with adapter_config.json and adapter_model.safetensors";
export const MODEL = "artifact folder, Hugging Face folder, .gguf or .onnx file";

export const data = () =>
  new Option("--data <folder>", "data folder").env("OATMILL_DATA").default(".oatmill");
export const json = () => new Option("--json", "print one JSON document");
export const threads = () =>
  new Option("--threads <n>", "compute threads (default: all cores)").argParser(integer(1));
export const workMemory = () =>
  new Option(
    "--work-memory <MiB>",
    "memory for hidden states and statistics; more goes to files (default: 1024, at most 1/4 of the machine's)",
  ).argParser(integer(0));
export const kv = () =>
  new Option(
    "--kv <format>",
    "how keys and values are stored (default: int8, f32 beside weights in f32)",
  ).choices(KV_FORMATS);
export const noAutotune = () =>
  new Option(
    "--no-autotune",
    "the same kernels everywhere, instead of those that are faster on this machine",
  );
export const values = () =>
  new Option("--values <kind>", "how the weights of a model that is no artifact are held")
    .choices(DENSE_VALUES)
    .default("f32");
