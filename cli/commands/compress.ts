/** Options of `compress`. */
import { type Command, Option } from "commander";
import {
  ALLOCATIONS,
  METHODS,
  PATTERNS,
  PRESET_NAMES,
  PRODUCTS,
  ROUNDINGS,
  SVD_WEIGHTINGS,
  VALUES,
  WORKLOADS,
} from "../../models/recipe.ts";
import { LINEAR_NAMES } from "../../models/spec.ts";
import { integer, listOf, number, share } from "./arguments.ts";
import { json, recovery, threads, workMemory } from "./options.ts";

export function addCompress(program: Command): void {
  const command = program.command("compress")
    .description("Compress a model into an artifact folder")
    .argument("<source>", "Hugging Face folder, .gguf or .onnx file")
    .requiredOption("--out <folder>", "artifact folder to make")
    .option("--name <name>", "the model's name (default: the folder's)")
    .option("--recipe <file>", "recipe as a JSON file; the options below replace its fields")
    .addOption(new Option("--preset <name>", "recipe that fields come from").choices(PRESET_NAMES))
    .addOption(new Option("--method <name>", "compression method").choices(METHODS))
    .addOption(new Option("--rate <share>", "share of block-weight parameters to remove").argParser(share))
    .addOption(
      new Option("--bytes <n>", "size of the artifact's tensors to meet, in place of a rate").argParser(
        integer(1),
      )
        .conflicts("rate"),
    )
    .addOption(
      new Option(
        "--ms-per-token <ms>",
        "time of the linear layers to meet on this machine, in place of a rate",
      )
        .argParser(number(0.001, 1e6)).conflicts(["rate", "bytes"]),
    )
    .addOption(
      new Option("--workload <kind>", "with --ms-per-token: which tokens it counts (default: mixed)").choices(
        WORKLOADS,
      ),
    )
    .addOption(
      new Option("--rank-ratio <share>", "share of kept parameters for the low-rank part").argParser(share),
    )
    .addOption(
      new Option("--dense <layers>", `layers that stay dense, of ${LINEAR_NAMES.join(", ")}`).argParser(
        listOf(LINEAR_NAMES),
      ),
    )
    .addOption(
      new Option("--allocation <kind>", "how the rate is spread over blocks").choices(ALLOCATIONS),
    )
    .addOption(new Option("--pattern <kind>", "where kept weights may stand").choices(PATTERNS))
    .addOption(new Option("--values <kind>", "how weights are stored").choices(VALUES))
    .addOption(
      new Option("--mean-bits <n>", "mean of the blocks' bits: more for those with more outliers").argParser(
        number(2, 8),
      ),
    )
    .addOption(new Option("--rounding <kind>", "how weights become codes").choices(ROUNDINGS))
    .addOption(new Option("--iterations <n>", "steps of OATS and of fast SVD").argParser(integer(1)))
    .addOption(new Option("--decomposition <kind>", "low-rank step").choices(["fast", "exact"]))
    .addOption(
      new Option("--reselect <n>", "rounds in which entries are chosen anew").argParser(integer(0)),
    )
    .addOption(
      new Option("--svd-weighting <kind>", "what method svd is nearest in").choices(SVD_WEIGHTINGS),
    )
    .option("--no-refine", "do not refit on calibration data")
    .addOption(
      new Option("--smallest-layer <n>", "of an .onnx file: layers of fewer weights stay with ONNX Runtime")
        .argParser(integer(0)),
    )
    .option(
      "--calibration <file>",
      'text, .jsonl or .json file, a folder of them, or "self"; for models that read images a folder of images; for an .onnx file also a .safetensors file with its inputs',
    )
    .addOption(new Option("--sequences <n>", "calibration sequences").argParser(integer(1)))
    .addOption(new Option("--length <n>", "tokens per calibration sequence").argParser(integer(16)))
    .addOption(new Option("--statistics <kind>", "inputs of a layer").choices(["dense", "sequential"]))
    .addOption(new Option("--products <kind>", "what the pass for statistics multiplies").choices(PRODUCTS))
    .option("--evaluate <file>", "held-out text for the perplexities")
    .addOption(new Option("--seed <n>", "seed of everything random").argParser(integer(0)));
  addAll(command, recovery())
    .option("--no-resume", "begin anew where an earlier run of this command was stopped")
    .addOption(workMemory())
    .addOption(threads())
    .addOption(json())
    .action(async (source, options) =>
      await (await import("../compress.ts")).compressCommand(source, options)
    );
}

const addAll = (command: Command, options: readonly Option[]): Command =>
  options.reduce((to, option) => to.addOption(option), command);

export function addRecover(program: Command): void {
  const command = program.command("recover")
    .description("Train what compression left of a model towards the dense one, into a new artifact")
    .argument("<artifact>", "artifact folder")
    .requiredOption("--source <model>", "the dense model that it was made from")
    .requiredOption("--out <folder>", "artifact folder to make")
    .option("--name <name>", "the new model's name (default: the artifact's)");
  addAll(command, recovery())
    .option(
      "--evaluate <file>",
      "held-out text for the perplexities (default: a part of the text to train on)",
    )
    .addOption(new Option("--evaluate-tokens <n>", "of it (default: 4096)").argParser(integer(64)))
    .option("--no-resume", "begin anew where an earlier run of this command was stopped")
    .addOption(workMemory())
    .addOption(threads())
    .addOption(json())
    .action(async (artifact, options) =>
      await (await import("../recover.ts")).recoverCommand(artifact, options)
    );
}
