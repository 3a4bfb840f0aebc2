/** `bench engine --adapters`. */
import { benchAdapters, type BenchAdaptersReport } from "../bench/adapters.ts";
import { type BenchEngineCommandOptions, range } from "./bench.ts";
import { megabytes, printResult, ProgressBar, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface BenchAdaptersCommandOptions extends BenchEngineCommandOptions {
  readonly adapters: number;
  readonly rank: number;
}

export async function benchAdaptersCommand(
  path: string,
  options: BenchAdaptersCommandOptions,
): Promise<void> {
  const bar = new ProgressBar();
  const report = await benchAdapters(path, {
    ...options,
    tuning: tuningOf(options),
    values: options.values ?? "f32",
    kvFormat: options.kv,
    promptTokens: options.promptTokens ?? 512,
    onProgress: (done, total, what) => bar.show({ phase: what, done, total }),
  });
  bar.end();
  printResult(report, { json: options.json, lines: () => adapterLines(report) });
}

const WORK = ["prefill", "decode", "streams"] as const;

function adapterLines(r: BenchAdaptersReport): string[] {
  return [
    ...table([
      ["tokens/s", ...WORK, ...WORK.map((work) => `${work} ratio`)],
      ...r.rows.map(({ adapters, tokens_per_second, ratio, ratio_spread }) => [
        `${adapters} adapters`,
        ...WORK.map((work) => tokens_per_second[work]),
        ...WORK.map((work) =>
          adapters === 0 ? null : `${ratio[work].toFixed(2)} (${range(ratio_spread[work])})`
        ),
      ]),
    ]),
    "",
    `${r.format}; adapters of rank ${r.rank} on ${r.layers} layers; ${r.streams} streams; medians of ${r.repeats} ` +
    `rounds, ratios of the rounds' ratios (middle half); ${r.threads} threads; adapters take ${
      megabytes(r.adapter_bytes)
    }`,
  ];
}
