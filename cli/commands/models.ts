/** Options of the commands that fetch, show, write and talk with a model. */
import { type Command, Option } from "commander";
import { EXPORT_FORMATS, EXPORT_TYPES } from "../../export/formats.ts";
import { SYNTHETIC_SHAPES } from "../../models/synthetic_shapes.ts";
import { idList, integer, number, share } from "./arguments.ts";
import { json, MODEL, noAutotune, PEFT_FOLDER, threads, values } from "./options.ts";

/** Options of `inspect` that say how to measure. */
const INSIGHT_ONLY = ["source", "calibration", "sequences", "length", "seed"] as const;

export function addModels(program: Command): void {
  program.command("pull")
    .description("Fetch a model of Hugging Face, or of the mirror in OATMILL_HUB_URL, into a folder")
    .argument("<model>", "organisation/name")
    .addOption(new Option("--revision <name>", "branch, tag or commit").default("main"))
    .option("--file <name>", "the .gguf file to take, of several")
    .option("--out <folder>", "where it goes (default: the model's name); what is there is not fetched again")
    .addOption(new Option("--max-bytes <n>", "largest model").default(2 ** 40).argParser(integer(1)))
    .addOption(json())
    .action(async (model, options) => await (await import("../pull.ts")).pullCommand(model, options));
  program.command("families")
    .description("List the model families that can be opened")
    .addOption(new Option("--markdown", "as the README's table").conflicts("json"))
    .addOption(json())
    .action(async (options) => (await import("../families.ts")).familiesCommand(options));
  program.command("export")
    .description("Write a model, S + L put together, in a form that other programs open")
    .argument("<model>", MODEL)
    .addOption(new Option("--to <format>", "its form").choices(EXPORT_FORMATS).makeOptionMandatory())
    .requiredOption("--out <path>", "folder or file to make")
    .addOption(new Option("--dtype <type>", "type of the weights (default: f16)").choices(EXPORT_TYPES))
    .option("--config <file>", "config.json, or source model, of an artifact that does not hold its own")
    .addOption(
      new Option("--shard-bytes <n>", "safetensors: most bytes of a file (default: 5 GB)").argParser(
        integer(1),
      ),
    )
    .option("--base <model>", "peft: what the adapter is added to; it holds the change of L from there")
    .addOption(
      new Option("--rank <n>", "peft: the best of this rank for all that changed, S too").argParser(
        integer(1),
      ),
    )
    .option("--parts", "safetensors: S, U and V of each layer as tensors of their own")
    .addOption(json())
    .action(async (model, options) => await (await import("../export.ts")).exportCommand(model, options));
  program.command("merge")
    .description("Write a new artifact with a LoRA adapter as more rank of its low-rank parts")
    .argument("<artifact>", "artifact folder")
    .requiredOption("--adapter <folder>", PEFT_FOLDER)
    .requiredOption("--out <folder>", "artifact folder to make")
    .option("--name <name>", "the model's name (default: the folder's)")
    .addOption(json())
    .action(async (model, options) => await (await import("../merge.ts")).mergeCommand(model, options));
  program.command("chat")
    .description("Talk with a model in the terminal (a model without a chat template continues your text)")
    .argument("<model>", MODEL)
    .option("--system <text>", "system message")
    .option("--adapter <folder>", PEFT_FOLDER)
    .addOption(new Option("--max-tokens <n>", "most tokens of an answer").default(256).argParser(integer(1)))
    .addOption(new Option("--temperature <t>", "0 is greedy").default(0.7).argParser(number(0, 2)))
    .addOption(new Option("--seed <n>", "seed of the sampling").argParser(integer(0)))
    .addOption(values())
    .addOption(noAutotune())
    .addOption(threads())
    .action(async (model, options) => await (await import("../chat.ts")).chat(model, options));
  program.command("inspect")
    .description("What a model is; for an artifact also what compression did to each layer")
    .argument("[model]", MODEL)
    .option("--speed", "measure which layers run faster compressed than dense on this machine")
    .addOption(
      new Option("--rate <share>", "with --speed, no artifact: what compression at this rate would store")
        .argParser(number(0, 0.95)),
    )
    .addOption(new Option("--rank-ratio <share>", "the same, with this low-rank part").argParser(share))
    .addOption(new Option("--values <kind>", "the same, with these values").choices(["int8", "int4"]))
    .option("--insight", "measure outliers, spectra, errors and window occupancy of every layer")
    .option(
      "--source <model>",
      "with --insight, an artifact: its dense model (default: where it was made from)",
    )
    .addOption(
      new Option(
        "--calibration <file>",
        'with --insight: text, .jsonl or .json file, a folder of them or of images, or "self"',
      ),
    )
    .addOption(new Option("--sequences <n>", "with --insight: sequences (default: 16)").argParser(integer(1)))
    .addOption(
      new Option("--length <n>", "with --insight: tokens of each (default: 512)").argParser(integer(16)),
    )
    .addOption(new Option("--seed <n>", "with --insight: seed of the sequences").argParser(integer(0)))
    .option("--rollout <image>", "what an artifact looks at in an image, with S + L, S alone and L alone")
    .option("--report <file>", "write all of it with plots as one HTML file")
    .addOption(
      new Option("--synthetic <shape>", "the shape of a real model instead of a model").choices(
        SYNTHETIC_SHAPES,
      ).conflicts(["insight", "report", "rollout"]),
    )
    .addOption(threads())
    .addOption(noAutotune())
    .addOption(json())
    .action(async (model, options, command: Command) => {
      if ((model === undefined) === (options.synthetic === undefined)) {
        command.error("error: give either a model or --synthetic");
      }
      const idle = options.insight ? undefined : INSIGHT_ONLY.find((name) => options[name] !== undefined);
      if (idle) command.error(`error: --${idle} is for --insight`);
      await (await import("../inspect.ts")).inspect(model, options);
    });
  program.command("logits")
    .description("Logits after the last of some tokens; of an encoder, those of its classes")
    .argument("<model>", MODEL)
    .addOption(new Option("--ids <list>", "token ids, as in 1,2,3").argParser(idList))
    .addOption(new Option("--image <file>", "of models that read images").conflicts("ids"))
    .option("--all", "of every position; of an encoder, its states as well")
    .addOption(values())
    .addOption(noAutotune())
    .addOption(threads())
    .addOption(json())
    .action(async (model, options) => await (await import("../logits.ts")).logits(model, options));
}
