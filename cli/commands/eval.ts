/** Options of `eval`. */
import { type Command, Option } from "commander";
import { VALUES } from "../../models/recipe.ts";
import type { EvalOptions } from "../eval.ts";
import { integer, nameList } from "./arguments.ts";
import { json, kv, MODEL, noAutotune, PEFT_FOLDER, threads, values } from "./options.ts";

export function addEval(program: Command): void {
  program.command("eval")
    .description(
      "Perplexity on a text, accuracy on multiple-choice tasks or images, divergence from another model",
    )
    .argument("<model>", MODEL)
    .option("--adapter <folder>", PEFT_FOLDER)
    .option("--text <file>", "text file")
    .addOption(new Option("--max-tokens <n>", "how much of the text").argParser(integer(2)))
    .addOption(
      new Option("--window <n>", "tokens scored together, without what stands before").default(512).argParser(
        integer(2),
      ),
    )
    .addOption(
      new Option("--stride <n>", "tokens from one window to the next (default: the window)").argParser(
        integer(1),
      ),
    )
    .option("--bos", "BOS before every window and question")
    .addOption(
      new Option(
        "--word-perplexity <kind>",
        "also as lm-evaluation-harness computes it for wikitext (the text is a raw WikiText file)",
      ).choices(["lm-eval"]),
    )
    .addOption(
      new Option("--max-length <n>", "with --word-perplexity: tokens read at once (default: the context)")
        .argParser(integer(1)),
    )
    .option("--reference <model>", "also how far the model is from this one (KL divergence) on the text")
    .addOption(
      new Option(
        "--reference-values <kind>",
        "how the reference's weights are held, unless it is an artifact",
      )
        .choices(VALUES).default("f32"),
    )
    .addOption(
      new Option("--tasks <list>", "arc_easy, piqa, openbookqa, or NAME for NAME.jsonl, with commas between")
        .argParser(nameList),
    )
    .option("--data <folder>", "where the tasks lie")
    .addOption(
      new Option("--limit <n>", "most questions of a task, pages of a text, images of a class").argParser(
        integer(1),
      ),
    )
    .option("--images <folder>", "accuracy on labelled images, a subfolder for each class")
    .addOption(values())
    .addOption(kv())
    .addOption(noAutotune())
    .addOption(threads())
    .addOption(json())
    .action(async (model, options, command: Command) => {
      checkEval(options, command);
      await (await import("../eval.ts")).evalCommand(model, options);
    });
}

/** What commander cannot say: which options need which. */
function checkEval(options: EvalOptions, command: Command): void {
  const { text, tasks, data, images, window, stride } = options;
  if (text === undefined && tasks === undefined && images === undefined) {
    command.error("error: give --text, --tasks or --images");
  }
  if (images !== undefined && (text ?? tasks) !== undefined) {
    command.error("error: --images cannot be used with --text or --tasks: a model reads images or text");
  }
  if (images !== undefined && options.adapter !== undefined) {
    command.error("error: --images cannot be used with --adapter: adapters run on decoders");
  }
  if ((tasks === undefined) !== (data === undefined)) {
    command.error("error: --tasks and --data need each other");
  }
  const ofText = (["reference", "wordPerplexity", "maxTokens", "stride"] as const).find((o) => options[o]);
  if (text === undefined && ofText) {
    const { long } = command.options.find((o) => o.attributeName() === ofText)!;
    command.error(`error: ${long} needs --text`);
  }
  if (stride !== undefined && stride > window) command.error("error: --stride is at most --window");
  if (options.maxLength !== undefined && options.wordPerplexity === undefined) {
    command.error("error: --max-length needs --word-perplexity");
  }
}
