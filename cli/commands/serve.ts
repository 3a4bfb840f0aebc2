/** Options of `serve`. */
import { type Command, Option } from "commander";
import { adapterOf, integer, number, originList, seconds } from "./arguments.ts";
import { data, kv, noAutotune, threads } from "./options.ts";

export function addServe(program: Command): void {
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
    .addOption(
      // 10 minutes is what OpenAI's clients wait for an answer: whoever waits longer has gone.
      new Option(
        "--request-timeout <s>",
        "seconds that a request may wait for its turn, then 503; 0 = for ever",
      )
        .default(600).argParser(seconds),
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
      new Option(
        "--keep-versions <n>",
        "versions kept of each model: older ones are removed when a new one has taken the name",
      ).default(3).argParser(integer(1)),
    )
    .addOption(
      new Option("--keep-ended <n>", "compressions and uploads that are over: of each, the newest are kept")
        .default(1000).argParser(integer(1)),
    )
    .addOption(
      new Option("--keep-ended-days <n>", "and for so long").default(90).argParser(number(0, 36_500)),
    )
    .addOption(
      new Option(
        "--preload <model>",
        "load this model, or version (name@sha), at the start (default: the model used last)",
      ).default(true),
    )
    .addOption(
      new Option(
        "--adapter <model:name=folder>",
        "LoRA adapter (PEFT's folder) that requests name model:name, kept in the data folder; may come several times",
      ).argParser(adapterOf),
    )
    .option("--no-preload", "load no model before its first request")
    .addOption(new Option("--max-upload-bytes <n>", "largest upload").argParser(integer(1)))
    .addOption(
      new Option("--drain-timeout <s>", "at SIGTERM: seconds that requests under way have to end").default(30)
        .argParser(seconds),
    )
    .addOption(
      new Option("--drain-delay <s>", "at SIGTERM: refuse requests (503) so long before the port closes")
        .default(0).argParser(seconds),
    )
    .addOption(
      new Option(
        "--storage-quota <bytes>",
        "most that files and uploads may take; default: what the disk has",
      )
        .argParser(integer(0)),
    )
    .option("--no-bundled", "do not prepare the bundled model")
    .action(async (options) => await (await import("../serve.ts")).serve(options));
}
