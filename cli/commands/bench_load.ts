/** Options of `bench load`. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { ARRIVALS } from "../../bench/load/arrivals.ts";
import { apiUrl, ENDPOINTS } from "../../bench/load/client.ts";
import { LENGTHS_SYNTAX, parseLengths } from "../../bench/load/lengths.ts";
import { parseDuration, parseSlo } from "../../bench/load/slo.ts";
import { parseSweep } from "../../bench/load/sweep_kinds.ts";
import { integer, number } from "./arguments.ts";
import { json } from "./options.ts";

/** A text that a parser knows, or a usage error that says what to write. */
function parsed<T>(parse: (text: string) => T | null, hint: string) {
  return (text: string): T => {
    const value = parse(text);
    if (value === null) throw new InvalidArgumentError(`Use ${hint}.`);
    return value;
  };
}
const MOST_RATE = 100_000;
const rate = number(1e-3, MOST_RATE);
const duration = parsed((text) => parseDuration(text, "s"), "a duration, as in 30s, 500ms or 2m");
const lengths = parsed(parseLengths, `a number of tokens or a distribution, ${LENGTHS_SYNTAX}`);

/** So many requests, or so many milliseconds. */
export type Warmup = { readonly requests: number } | { readonly ms: number };
function parseWarmup(text: string): Warmup | null {
  if (/^\d{1,9}$/.test(text)) return { requests: Number(text) };
  const ms = parseDuration(text, "s");
  return ms === null ? null : { ms };
}
function parsePrefix(text: string): { tokens: number; groups: number } | null {
  const match = /^([1-9]\d{0,6})[x×*]([1-9]\d{0,4})$/.exec(text);
  return match && { tokens: Number(match[1]), groups: Number(match[2]) };
}
function parseBody(text: string): Record<string, unknown> | null {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

export function addBenchLoad(bench: Command): void {
  bench.command("load")
    .description("Latency, throughput and goodput of an OpenAI-compatible server under load")
    .addOption(
      new Option("--url <url>", "the server, of this machine; its README says how to reach others").default(
        "http://127.0.0.1:8000",
      ).argParser(parsed((text) => apiUrl(text) && text, "an address, as in http://127.0.0.1:8000")),
    )
    .option("--model <name>", "default: the first that the server lists")
    .addOption(
      new Option("--endpoint <name>", "default: chat for a dataset of messages, else completions").choices(
        Object.keys(ENDPOINTS),
      ),
    )
    .addOption(new Option("--api-key <key>", "better as a variable than here").env("OPENAI_API_KEY"))
    .addOption(
      new Option("--rate <n>", "open loop: requests a second, sent when due, whatever the server does")
        .argParser(rate).conflicts("concurrency"),
    )
    .addOption(
      new Option(
        "--arrivals <kind>",
        "open loop: poisson, constant, burst (--burstiness), ramp (--ramp-from)",
      )
        .choices(ARRIVALS).default("poisson"),
    )
    .addOption(
      new Option("--burstiness <n>", "shape of the gaps' gamma distribution: below 1 they come in bursts")
        .default(0.25).argParser(number(0.01, 1000)),
    )
    .addOption(
      new Option("--ramp-from <n>", "a ramp's requests a second at its start (default: a tenth of --rate)")
        .argParser(rate),
    )
    .addOption(
      new Option("--max-in-flight <n>", "open loop: further requests wait, and their wait counts").default(
        512,
      )
        .argParser(integer(1, 65_536)),
    )
    .addOption(
      new Option("--concurrency <n>", "closed loop: so many users, each waiting for its answer (default: 1)")
        .argParser(integer(1, 65_536)),
    )
    .addOption(
      new Option("--requests <n>", "measured requests (default: 100, without --duration)").argParser(
        integer(1),
      ),
    )
    .addOption(new Option("--duration <time>", "how long requests are sent, as in 30s").argParser(duration))
    .addOption(
      new Option("--warmup <n|time>", "requests or time before the measurement").default(
        { requests: 5 } satisfies Warmup,
        "5 requests",
      ).argParser(parsed(parseWarmup, "a number of requests, or a duration as in 5s")),
    )
    .addOption(
      new Option("--dataset <file>", "prompts: .jsonl, .json (ShareGPT) or .txt (default: random words)")
        .conflicts("inputTokens"),
    )
    .addOption(
      new Option("--input-tokens <lengths>", `of random words, ${LENGTHS_SYNTAX} (default: 128)`)
        .argParser(lengths),
    )
    .addOption(
      new Option("--output-tokens <lengths>", "of answers, likewise (default: 64, or what the dataset says)")
        .argParser(lengths),
    )
    .addOption(
      new Option("--shared-prefix <tokens×groups>", "prompts begin with one of so many texts, as in 512x4")
        .argParser(parsed(parsePrefix, "tokens x groups, as in 512x4")),
    )
    .option("--ignore-eos", "ask for answers of full length (vLLM, llama.cpp, Oatmill)")
    .addOption(
      new Option("--body <json>", "further fields of every request; null takes one away").argParser(
        parsed(parseBody, `a JSON object, as in '{"top_k": 1}'`),
      ),
    )
    .addOption(new Option("--seed <n>", "of arrivals, lengths and prompts").default(0).argParser(integer(0)))
    .addOption(
      new Option("--timeout <time>", "of a request, until its end").default(120_000, "120s").argParser(
        duration,
      ),
    )
    .addOption(
      new Option(
        "--slo <limits>",
        "a request must meet all to count as goodput, as in ttft=200ms,tpot=30ms,e2e=5s",
      )
        .default({}, "none").argParser(
          parsed(parseSlo, "limits of ttft, tpot and e2e, as in ttft=200ms,tpot=30ms"),
        ),
    )
    .addOption(
      new Option("--sweep <loads>", "several loads and their knee: rate=1,2,4,8, concurrency=auto (doubles)")
        .argParser(parsed(parseSweep, "rate or concurrency with rising numbers or auto, as in rate=1,2,4,8"))
        .conflicts(["rate", "concurrency"]),
    )
    .addOption(
      new Option("--compare <names...>", "two models (or URLs, or URL#model) in turn, A B A B").conflicts(
        "model",
      ),
    )
    .addOption(
      new Option("--blocks <n>", "rounds of a comparison").default(3).argParser(integer(1, 1000)),
    )
    .option("--self-check", "also measure what the client adds, on a server that does nothing")
    .option("--report <file>", "write an HTML page with charts")
    .option("--save-requests <file>", "write each measured request's times as a line of JSON")
    .addOption(json())
    .action(async (options, command: Command) => {
      if (options.compare && options.compare.length !== 2) command.error("error: --compare takes two names");
      await (await import("../bench_load.ts")).benchLoadCommand(options);
    });
}
