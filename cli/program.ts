/**
 * The commands and their options. Each command's work stands in the file of its name, loaded when it is called.
 * Exit codes: 0 done, 1 failed, 2 wrong usage.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import project from "../deno.json" with { type: "json" };
import { OatmillError } from "../errors.ts";
import { PEERS } from "../bench/peer_names.ts";
import { RIVALS } from "../bench/rivals.ts";
import { TILE_SIZES, type TileSize } from "../kernels/abi.ts";
import { EXPORT_FORMATS, EXPORT_TYPES } from "../export/formats.ts";
import { KV_FORMATS } from "../kernels/kv_layout.ts";
import type { Shape2 } from "../kernels/layout.ts";
import {
  ALLOCATIONS,
  DENSE_VALUES,
  METHODS,
  PATTERNS,
  PRESET_NAMES,
  PRODUCTS,
  ROUNDINGS,
  SVD_WEIGHTINGS,
  VALUES,
  WORKLOADS,
} from "../models/recipe.ts";
import { LINEAR_NAMES } from "../models/spec.ts";
import { SCOPES } from "../routes/scopes.ts";
import { SYNTHETIC_SHAPES } from "../models/synthetic_shapes.ts";
import type { EvalOptions } from "./eval.ts";
import { note, print } from "./output.ts";

const MODEL = "artifact folder, Hugging Face folder, .gguf or .onnx file";

function integer(min: number, max = Number.MAX_SAFE_INTEGER) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isSafeInteger(value) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Use a whole number ${range}.`);
  };
}
function number(min: number, max: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Use a number from ${min} to ${max}.`);
  };
}
const share = number(0, 1);
function idList(text: string): number[] {
  const ids = text.split(",").map((t) => t.trim() === "" ? NaN : Number(t));
  if (ids.every((id) => Number.isSafeInteger(id) && id >= 0)) return ids;
  throw new InvalidArgumentError("Use token ids with commas between them, as in 1,2,3.");
}
function batchList(text: string): TileSize[] {
  const sizes = text.split(",").map(Number);
  const known = (size: number): size is TileSize => (TILE_SIZES as readonly number[]).includes(size);
  if (sizes.every(known)) return sizes;
  throw new InvalidArgumentError(`Use some of ${[...TILE_SIZES].reverse().join(",")}.`);
}
function shapeList(text: string): Shape2[] {
  return text.split(",").map((shape) => {
    const match = /^([1-9]\d{0,5})x([1-9]\d{0,5})$/.exec(shape);
    if (match) return [Number(match[1]), Number(match[2])] as const;
    throw new InvalidArgumentError("Use rows x columns, as in 2048x2048,64x2048.");
  });
}

/** Rates with commas between them. */
function rateList(text: string): number[] {
  const rates = text.split(",").map((t) => t.trim() === "" ? NaN : Number(t));
  if (rates.every((rate) => rate >= 0 && rate <= 0.95)) return rates;
  throw new InvalidArgumentError("Use rates from 0 to 0.95 with commas between them, as in 0.5,0.7.");
}
function originList(text: string): string[] {
  const origins = text.split(",").map((t) => t.trim());
  if (origins.every((o) => /^https?:/.test(o) && URL.canParse(o) && new URL(o).origin === o)) return origins;
  throw new InvalidArgumentError(
    "Use scheme and host, as in https://chat.example.org,http://localhost:3000.",
  );
}
function listOf(choices: readonly string[]) {
  return (text: string): string[] => {
    const names = text === "" ? [] : text.split(",").map((t) => t.trim());
    if (names.every((name) => choices.includes(name))) return names;
    throw new InvalidArgumentError(`Use one or more of ${choices.join(", ")} with commas between them.`);
  };
}

/** Names of files without their folder and ending. */
function nameList(text: string): string[] {
  const names = [...new Set(text.split(",").map((t) => t.trim()))];
  if (names.every((name) => /^[\w-][\w.-]*$/.test(name))) return names;
  throw new InvalidArgumentError("Use names with commas between them, as in arc_easy,piqa.");
}

const data = () => new Option("--data <folder>", "data folder").env("OATMILL_DATA").default(".oatmill");
const json = () => new Option("--json", "print one JSON document");
const threads = () =>
  new Option("--threads <n>", "compute threads (default: all cores)").argParser(integer(1));
const workMemory = () =>
  new Option(
    "--work-memory <MiB>",
    "memory for hidden states and statistics; more goes to files (default: 1024, at most 1/4 of the machine's)",
  ).argParser(integer(0));
const kv = () =>
  new Option(
    "--kv <format>",
    "how keys and values are stored (default: int8, f32 beside weights in f32)",
  ).choices(KV_FORMATS);
const noAutotune = () =>
  new Option(
    "--no-autotune",
    "the same kernels everywhere, instead of those that are faster on this machine",
  );
const values = () =>
  new Option("--values <kind>", "how the weights of a model that is no artifact are held")
    .choices(DENSE_VALUES)
    .default("f32");

export function createProgram(): Command {
  const program = new Command("oatmill")
    .description("Compresses transformers (sparse + low-rank) and serves them on CPUs.")
    .version(project.version)
    .exitOverride()
    .configureOutput({ writeOut: (s) => print(s), writeErr: (s) => note(s.trimEnd()) });
  addServe(program);
  addCompress(program);
  addEval(program);
  addBench(program);
  addKeys(program);
  addSmall(program);
  return program;
}

function addServe(program: Command): void {
  program.command("serve")
    .description("Serve the models of the data folder over HTTP")
    .addOption(
      new Option("--host <address>", "address to listen on").env("OATMILL_HOST").default("127.0.0.1"),
    )
    .option(
      "--allow-anonymous",
      "listen beyond this machine without API keys: behind a proxy that knows its callers",
    )
    .addOption(
      new Option("--cors-origin <list>", "origins whose pages may call, as in https://chat.example.org")
        .argParser(originList),
    )
    .addOption(
      new Option(
        "--requests-per-minute <n>",
        "most requests to models of a key, or of an address without keys; more get 429",
      ).argParser(integer(1)),
    )
    .addOption(
      new Option("--tokens-per-minute <n>", "the same for tokens, of prompts and answers").argParser(
        integer(1),
      ),
    )
    .addOption(
      new Option("--port <n>", "port; 0 takes a free one").env("PORT").default(8000).argParser(
        integer(0, 65535),
      ),
    )
    .addOption(data())
    .addOption(threads())
    .addOption(new Option("--context <n>", "cap on the context window").argParser(integer(16)))
    .addOption(kv())
    .addOption(new Option("--max-sequences <n>", "most generations in one step").argParser(integer(1)))
    .addOption(
      new Option("--max-waiting <n>", "most waiting generations; more get 429").argParser(integer(0)),
    )
    .option("--no-prefix-cache", "compute every prompt anew, also what earlier ones began with")
    .addOption(noAutotune())
    .option("--no-speculation", "compute one token of a generation a step, also where it repeats its text")
    .addOption(new Option("--max-loaded <n>", "most models kept in memory").default(4).argParser(integer(1)))
    .addOption(
      // Ollama's 5 minutes suit a desktop; here the memory is mostly the server's own, and a load costs the next
      // caller a fifth of a second (SmolLM2) to seconds (7B) and the prefix cache.
      new Option("--idle-minutes <n>", "unload a model that nobody used for so long; 0 = never").default(30)
        .argParser(number(0, 35_000)), // what a timer holds
    )
    .addOption(
      new Option("--preload <model>", "load this model at the start (default: the one used last)").default(
        true,
      ),
    )
    .option("--no-preload", "load no model before its first request")
    .addOption(new Option("--max-upload-bytes <n>", "largest upload").argParser(integer(1)))
    .option("--no-bundled", "do not prepare the bundled model")
    .action(async (options) => await (await import("./serve.ts")).serve(options));
}

function addKeys(program: Command): void {
  const keys = program.command("keys").description("API keys of a server, also while it runs");
  keys.command("add")
    .description("Make an API key and show it, once: only its hash is stored")
    .argument("<name>", "whose key it is")
    .addOption(
      new Option("--scopes <list>", `what it may do, of ${SCOPES.join(", ")} (admin: everything)`)
        .default(["read", "infer"]).argParser(listOf(SCOPES)),
    )
    .addOption(data())
    .addOption(json())
    .action(async (name, options) => await (await import("./keys.ts")).addKey(name, options));
  keys.command("list")
    .description("List the API keys of the data folder")
    .addOption(data())
    .addOption(json())
    .action(async (options) => await (await import("./keys.ts")).listKeys(options));
  keys.command("revoke")
    .description("Delete an API key: its next request is refused")
    .argument("<id>", "as `keys list` shows it")
    .addOption(data())
    .addOption(json())
    .action(async (id, options) => await (await import("./keys.ts")).revokeKey(id, options));
}

function addCompress(program: Command): void {
  program.command("compress")
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
    .addOption(new Option("--seed <n>", "seed of everything random").argParser(integer(0)))
    .addOption(workMemory())
    .addOption(threads())
    .addOption(json())
    .action(async (source, options) =>
      await (await import("./compress.ts")).compressCommand(source, options)
    );
}

function addEval(program: Command): void {
  program.command("eval")
    .description(
      "Perplexity on a text, accuracy on multiple-choice tasks or images, divergence from another model",
    )
    .argument("<model>", MODEL)
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
      await (await import("./eval.ts")).evalCommand(model, options);
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

/** Options of `bench engine` that say nothing about a model which is there. */
const SYNTHETIC_ONLY: readonly unknown[] = ["--rate", "--rank-ratio", "--against", "--context", "--memory"];

function addBench(program: Command): void {
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
      if (options.synthetic) await (await import("./bench_synthetic.ts")).benchSyntheticCommand(options);
      else await (await import("./bench.ts")).benchEngineCommand(model, options);
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
        return await (await import("./bench_compress_synthetic.ts")).benchCompressCommand({
          sequences: 128,
          ...options,
        });
      }
      await (await import("./bench_compress_rows.ts")).benchCompressRowsCommand(model, {
        sequences: 64,
        ...options,
      });
    });
  bench.command("start")
    .description("From the process's start to the first token of an artifact, and how fast its weights load")
    .argument("<artifact>", "artifact folder")
    .addOption(new Option("--repeats <n>", "medians over so many starts").default(5).argParser(integer(1)))
    .addOption(threads())
    .addOption(json())
    .action(async (artifact, options) =>
      await (await import("./bench_start.ts")).benchStartCommand(artifact, options)
    );
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
    .action(async (options) => await (await import("./bench_kernels.ts")).benchKernelsCommand(options));
}

/** Options of `inspect` that say how to measure. */
const INSIGHT_ONLY = ["source", "calibration", "sequences", "length", "seed"] as const;

function addSmall(program: Command): void {
  program.command("pull")
    .description("Fetch a model of Hugging Face, or of the mirror in OATMILL_HUB_URL, into a folder")
    .argument("<model>", "organisation/name")
    .addOption(new Option("--revision <name>", "branch, tag or commit").default("main"))
    .option("--file <name>", "the .gguf file to take, of several")
    .option("--out <folder>", "where it goes (default: the model's name); what is there is not fetched again")
    .addOption(new Option("--max-bytes <n>", "largest model").default(2 ** 40).argParser(integer(1)))
    .addOption(json())
    .action(async (model, options) => await (await import("./pull.ts")).pullCommand(model, options));
  program.command("families")
    .description("List the model families that can be opened")
    .addOption(new Option("--markdown", "as the README's table").conflicts("json"))
    .addOption(json())
    .action(async (options) => (await import("./families.ts")).familiesCommand(options));
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
    .option("--parts", "safetensors: S, U and V of each layer as tensors of their own")
    .addOption(json())
    .action(async (model, options) => await (await import("./export.ts")).exportCommand(model, options));
  program.command("chat")
    .description("Talk with a model in the terminal (a model without a chat template continues your text)")
    .argument("<model>", MODEL)
    .option("--system <text>", "system message")
    .addOption(new Option("--max-tokens <n>", "most tokens of an answer").default(256).argParser(integer(1)))
    .addOption(new Option("--temperature <t>", "0 is greedy").default(0.7).argParser(number(0, 2)))
    .addOption(new Option("--seed <n>", "seed of the sampling").argParser(integer(0)))
    .addOption(values())
    .addOption(noAutotune())
    .addOption(threads())
    .action(async (model, options) => await (await import("./chat.ts")).chat(model, options));
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
      await (await import("./inspect.ts")).inspect(model, options);
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
    .action(async (model, options) => await (await import("./logits.ts")).logits(model, options));
}

/** Parses and runs. @returns the exit code */
export async function run(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof OatmillError || isSystemError(error)) note(`oatmill: ${error.message}`);
    else note(`oatmill: ${error instanceof Error ? error.stack ?? error.message : error}`);
    return 1;
  }
}

/** What the system refuses, such as a file that is not there: its message says which, a stack would say no more. */
const isSystemError = (error: unknown): error is Error =>
  Object.values(Deno.errors).some((kind) => error instanceof kind);
