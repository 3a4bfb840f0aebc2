/** Options that several commands have. */
import { Option } from "commander";
import { KV_FORMATS } from "../../kernels/kv_layout.ts";
import { DENSE_VALUES, RECOVER_KINDS, TRAINED_PARTS } from "../../models/recipe.ts";
import { integer, number } from "./arguments.ts";

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
/** Of a recovery, after `compress` or of an artifact. */
export const recovery = (): Option[] => [
  new Option(
    "--recover <kind>",
    "train what compression left towards the dense model (default of recover: distill)",
  )
    .choices(RECOVER_KINDS),
  new Option("--recover-tokens <n>", "tokens to train on (default: 100000)").argParser(integer(64)),
  new Option("--recover-train <parts>", "what is trained besides norms (default: lowrank+sparse)")
    .choices(TRAINED_PARTS),
  new Option("--recover-text <file>", 'text to train on, as of --calibration, or "self"'),
  new Option("--recover-length <n>", "tokens per sequence (default: 256)").argParser(integer(16)),
  new Option("--recover-batch <n>", "sequences of one step").argParser(integer(1)),
  new Option("--learning-rate <rate>", "of AdamW, behind the warm-up").argParser(number(1e-9, 1)),
  new Option("--recover-seed <n>", "seed of the order of sequences, and of what is sampled").argParser(
    integer(0),
  ),
];
export const values = () =>
  new Option("--values <kind>", "how the weights of a model that is no artifact are held")
    .choices(DENSE_VALUES)
    .default("f32");
