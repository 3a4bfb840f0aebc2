/** Options of `bench` and what belongs to it. */
import { type Command, Option } from "commander";
import { PEERS } from "../../bench/peer_names.ts";
import { RIVALS } from "../../bench/rivals.ts";
import { RECOVER_KINDS, TRAINED_PARTS } from "../../compress/recovery/options.ts";
import { DENSE_VALUES } from "../../models/recipe.ts";
import { SYNTHETIC_SHAPES } from "../../models/synthetic_shapes.ts";
import { batchList, integer, listOf, number, rateList, shapeList, share } from "./arguments.ts";
import { addBenchLoad } from "./bench_load.ts";
import { json, kv, MODEL, noAutotune, threads, workMemory } from "./options.ts";

/** Options of `bench engine` that say nothing about a model which is there. */
const SYNTHETIC_ONLY: readonly unknown[] = ["--rate", "--rank-ratio", "--against", "--context", "--memory"];

export function addBench(program: Command): void {
  const bench = program.command("bench").description("Measure this machine");
  bench.command("engine")
    .description("Prefill and decode speed, time to first token and memory of a model")
    .argument("[model]", MODEL)
    .addOption(
      new Option("--peer", "also measure other programs and own dense models, turn by turn, and print ratios")
        .conflicts("synthetic"),
    )
    .addOption(
      new Option("--peers <list>", `only these: ${PEERS.join(", ")}`).argParser(listOf(PEERS))
        .conflicts("synthetic"),
    )
    .addOption(
      new Option("--peer-model <file>", "what the peers run (default: the model an artifact was made from)")
        .conflicts("synthetic"),
    )
    .addOption(
      new Option("--prompt-tokens <n>", "default: 512, an encoder's input 256").argParser(integer(1)),
    )
    .addOption(new Option("--decode-tokens <n>", "length of a generation").default(64).argParser(integer(2)))
    .addOption(new Option("--streams <n>", "generations at once").default(16).argParser(integer(1)))
    .addOption(new Option("--repeats <n>", "medians over so many runs").default(3).argParser(integer(1)))
    .addOption(
      new Option(
        "--values <kind>",
        "how weights are held (default: f32 for a checkpoint, int8 for --synthetic)",
      )
        .choices(DENSE_VALUES),
    )
    .addOption(kv())
    .addOption(
      new Option("--synthetic <shape>", "random weights of a real model's shape instead of a model").choices(
        SYNTHETIC_SHAPES,
      ),
    )
    .addOption(
      new Option("--rate <list>", "synthetic: rates, as in 0.5,0.7; 0 is dense").default([0.5], "0.5")
        .argParser(rateList),
    )
    .addOption(
      new Option("--rank-ratio <share>", "synthetic: share of kept parameters for the low-rank part").default(
        0.25,
      ).argParser(share),
    )
    .addOption(
      new Option("--against <list>", `synthetic: what it is compared with, of ${RIVALS.join(", ")}`)
        .default(["dense-int8"], "dense-int8").argParser(listOf(RIVALS)),
    )
    .addOption(
      new Option("--context <n>", "synthetic: tokens in the context when a decode ends").argParser(
        integer(16),
      ),
    )
    .addOption(
      new Option("--memory <GiB>", "synthetic: weights loaded at once; more are loaded anew for each round")
        .default(12).argParser(integer(1)),
    )
    .addOption(
      new Option("--adapters <n>", "measure what LoRA adapters cost: none, one and so many side by side")
        .argParser(integer(1)).conflicts(["synthetic", "peer", "peers", "peerModel"]),
    )
    .addOption(new Option("--rank <n>", "of the adapters, on every layer").default(16).argParser(integer(1)))
    .addOption(noAutotune())
    .addOption(threads())
    .addOption(json())
    .action(async (model, options, command: Command) => {
      if ((model === undefined) === (options.synthetic === undefined)) {
        command.error("error: give either a model or --synthetic");
      }
      const given = (option: Option) =>
        SYNTHETIC_ONLY.includes(option.long) &&
        command.getOptionValueSource(option.attributeName()) === "cli";
      const other = model === undefined ? undefined : command.options.find(given);
      if (other) command.error(`error: ${other.long} is for --synthetic, not for a model`);
      if (options.synthetic) await (await import("../bench_synthetic.ts")).benchSyntheticCommand(options);
      else if (options.adapters !== undefined) {
        await (await import("../bench_adapters.ts")).benchAdaptersCommand(model, options);
      } else await (await import("../bench.ts")).benchEngineCommand(model, options);
    });
  bench.command("compress")
    .description(
      "One model by many methods and rates: perplexity as served, time, memory; or a real model's shape",
    )
    .argument("[model]", "Hugging Face folder or .gguf file (default: the bundled model)")
    .addOption(
      new Option("--rows <list>", "only rows whose names contain one of these, as in oatmill,dense")
        .argParser(
          (text: string) => text.split(","),
        ),
    )
    .option("--calibration <file>", "text of all rows (default: sampled from the model)")
    .option("--evaluate <file>", "held-out text (default: a part of the calibration)")
    .addOption(
      new Option("--tokens <n>", "how much of the held-out text").default(20_480).argParser(integer(64)),
    )
    .option("--results <folder>", "where finished rows are kept, to go on from", ".oatmill/bench")
    .option("--keep", "keep the artifacts there as well")
    .addOption(
      new Option("--synthetic <shape>", "time and memory of some blocks of this shape, random weights")
        .choices(SYNTHETIC_SHAPES),
    )
    .addOption(
      new Option("--blocks <n>", "synthetic: blocks of real size; the whole model's hours follow from them")
        .default(2).argParser(integer(1)),
    )
    .option("--recipe <file>", "synthetic: recipe as a JSON file (default: the default one)")
    .addOption(
      new Option("--sequences <n>", "calibration sequences (default: 64, synthetic 128)").argParser(
        integer(1),
      ),
    )
    .addOption(
      new Option("--length <n>", "tokens per calibration sequence").default(512).argParser(integer(16)),
    )
    .addOption(workMemory())
    .addOption(threads())
    .addOption(json())
    .action(async (model, options, command: Command) => {
      if (model !== undefined && options.synthetic) {
        command.error("error: give either a model or --synthetic");
      }
      if (options.synthetic) {
        return await (await import("../bench_compress_synthetic.ts")).benchCompressCommand({
          sequences: 128,
          ...options,
        });
      }
      await (await import("../bench_compress_rows.ts")).benchCompressRowsCommand(model, {
        sequences: 64,
        ...options,
      });
    });
  bench.command("recover")
    .description("Training of a compressed model: tokens a second, share of matrix products, memory")
    .argument("[model]", "Hugging Face folder or .gguf file (default: the bundled model)")
    .addOption(
      new Option("--synthetic <shape>", "some blocks of this shape, random weights").choices(
        SYNTHETIC_SHAPES,
      ),
    )
    .addOption(new Option("--blocks <n>", "synthetic: how many").default(1).argParser(integer(1)))
    .addOption(
      new Option("--kind <kind>", "towards next tokens, or block by block").choices(RECOVER_KINDS)
        .default("distill"),
    )
    .addOption(
      new Option("--train <parts>", "what is trained beside the norms").choices(TRAINED_PARTS)
        .default("lowrank+sparse"),
    )
    .addOption(
      new Option("--rate <share>", "weights that are missing").default(0.5).argParser(number(0, 0.95)),
    )
    .addOption(
      new Option("--rank-ratio <share>", "share of kept parameters for the low-rank part").default(0.125)
        .argParser(share),
    )
    .addOption(new Option("--steps <n>", "steps that are timed").default(5).argParser(integer(1)))
    .addOption(new Option("--batch <n>", "sequences of a step").default(2).argParser(integer(1)))
    .addOption(new Option("--length <n>", "tokens of a sequence").default(256).argParser(integer(2)))
    .addOption(threads())
    .addOption(json())
    .action(async (model, options, command: Command) => {
      if (model !== undefined && options.synthetic) {
        command.error("error: give either a model or --synthetic");
      }
      await (await import("../bench_recover.ts")).benchRecoverCommand(model, options);
    });
  bench.command("start")
    .description("From the process's start to the first token of an artifact, and how fast its weights load")
    .argument("<artifact>", "artifact folder")
    .addOption(new Option("--repeats <n>", "medians over so many starts").default(5).argParser(integer(1)))
    .addOption(threads())
    .addOption(json())
    .action(async (artifact, options) =>
      await (await import("../bench_start.ts")).benchStartCommand(artifact, options)
    );
  addBenchLoad(bench);
  bench.command("kernels")
    .description("The machine's memory and multiply speed, and how near to it every linear kernel comes")
    .option(
      "--kernel <formats...>",
      "these weight formats, as in w8q4 (default: those of the default recipes)",
    )
    .addOption(
      new Option("--model <names...>", "layers of these models (default: all but tiny)").choices(
        SYNTHETIC_SHAPES,
      ),
    )
    .addOption(
      new Option("--shape <list>", "other layers, as in 2048x2048,64x2048").argParser(shapeList)
        .conflicts("model"),
    )
    .addOption(
      new Option("--batch <list>", "tokens at once, as in 1,2,4 (default: 1 and the most)").argParser(
        batchList,
      ),
    )
    .option("--all", "every variant of the kernels, not only the one chosen for this machine")
    .addOption(noAutotune())
    .addOption(threads())
    .addOption(json())
    .action(async (options) => await (await import("../bench_kernels.ts")).benchKernelsCommand(options));
}
