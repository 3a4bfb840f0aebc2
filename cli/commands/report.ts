/** Options of `report`. */
import { type Command, Option } from "commander";
import type { ReportOptions } from "../report.ts";
import { integer, nameList } from "./arguments.ts";
import { json, MODEL, noAutotune, threads } from "./options.ts";

/** What one chooses between: the model as it is, smaller codes, and S + L at three rates. */
const ROWS = ["dense f32", "dense int8", "dense int4: feedback", "oatmill 0.3", "oatmill 0.4", "oatmill 0.5"];

export function addReport(program: Command): void {
  program.command("report")
    .description("Models side by side: bytes, perplexity, accuracy and speeds, as Markdown and as a page")
    .argument("<models...>", `${MODEL}; what is no artifact is compressed in several ways first`)
    .requiredOption("--text <file>", "text that perplexity is measured on")
    .option("--out <file>", "HTML page to write")
    .option(
      "--markdown <file>",
      "Markdown to write; of a file that has a report's marks, what is between them",
    )
    .addOption(new Option("--max-tokens <n>", "how much of the text").default(20_480).argParser(integer(2)))
    .addOption(new Option("--window <n>", "tokens scored together").default(512).argParser(integer(2)))
    .addOption(
      new Option("--rows <list>", "how a model is compressed: names, or parts of names, of `bench compress`")
        .default(ROWS, ROWS.join(",")).argParser((list) => list.split(",").map((name) => name.trim())),
    )
    .option("--calibration <file>", "text to calibrate on (default: the model's own)")
    .addOption(new Option("--sequences <n>", "of calibration").default(64).argParser(integer(1)))
    .addOption(new Option("--length <n>", "tokens of each").default(512).argParser(integer(16)))
    .addOption(
      new Option("--results <folder>", "what was compressed; a report that was stopped goes on from it")
        .default("report-models"),
    )
    .addOption(
      new Option("--tasks <list>", "arc_easy, piqa, openbookqa, or NAME for NAME.jsonl, with commas between")
        .argParser(nameList),
    )
    .option("--data <folder>", "where the tasks lie")
    .addOption(new Option("--limit <n>", "most questions of a task").argParser(integer(1)))
    .addOption(new Option("--prompt-tokens <n>", "of a prefill").default(512).argParser(integer(1)))
    .addOption(new Option("--decode-tokens <n>", "of a generation").default(64).argParser(integer(2)))
    .addOption(new Option("--streams <n>", "generations at once").default(16).argParser(integer(1)))
    .addOption(new Option("--repeats <n>", "medians over so many rounds").default(3).argParser(integer(1)))
    .addOption(noAutotune())
    .addOption(threads())
    .addOption(json())
    .action(async (models: string[], options: ReportOptions, command: Command) => {
      if ((options.tasks === undefined) !== (options.data === undefined)) {
        command.error("error: --tasks and --data need each other");
      }
      await (await import("../report.ts")).reportCommand(models, options);
    });
}
