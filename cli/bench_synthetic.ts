/** `bench engine --synthetic`. */
import type { Rival } from "../bench/rivals.ts";
import { benchSynthetic, type BenchSyntheticReport } from "../bench/synthetic.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import type { DenseValues } from "../models/pack_dense.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { megabytes, printResult, ProgressBar, table } from "./output.ts";
import { tuningOf } from "./tuning.ts";

export interface BenchSyntheticCommandOptions {
  readonly synthetic: SyntheticShape;
  readonly rate: readonly number[];
  readonly rankRatio: number;
  readonly values?: DenseValues;
  readonly against: readonly Rival[];
  readonly threads?: number;
  readonly kv?: KvFormat;
  readonly autotune?: boolean;
  readonly promptTokens?: number;
  readonly decodeTokens: number;
  readonly context?: number;
  readonly streams: number;
  readonly repeats: number;
  /** GiB */
  readonly memory: number;
  readonly json?: boolean;
}

export async function benchSyntheticCommand(options: BenchSyntheticCommandOptions): Promise<void> {
  const bar = new ProgressBar();
  const report = await benchSynthetic({
    shape: options.synthetic,
    rates: options.rate,
    rankRatio: options.rankRatio,
    values: options.values ?? "int8",
    against: options.against,
    threads: options.threads,
    kvFormat: options.kv,
    tuning: tuningOf(options),
    promptTokens: options.promptTokens,
    decodeTokens: options.decodeTokens,
    context: options.context ?? null,
    streams: options.streams,
    repeats: options.repeats,
    memoryBytes: options.memory * 2 ** 30,
    onProgress: (done, total, what) => bar.show({ phase: what, done, total }),
  });
  bar.end();
  printResult(report, { json: options.json, lines: () => reportLines(report) });
}

/** As in "decode_tokens_per_second" -> "decode tok/s". */
const heading = (figure: string): string =>
  figure.replace("_tokens_per_second", " tok/s").replaceAll("_", " ");

function reportLines({ models, ...r }: BenchSyntheticReport): string[] {
  const figures = Object.keys(models[0].median);
  const ratioRows = models.flatMap((m) =>
    Object.entries(m.ratios).map(([rival, ratio]) => [
      `${m.name} / ${rival}`,
      ...figures.map((f) =>
        `${ratio.median[f].toFixed(2)} (${ratio.spread[f].min.toFixed(2)}-${ratio.spread[f].max.toFixed(2)})`
      ),
    ])
  );
  const work = models[0].forward_ms
    ? `input ${r.prompt_tokens}`
    : `prompt ${r.prompt_tokens}, decode ${r.decode_tokens}${
      r.context === null ? "" : ` up to ${r.context}`
    }, ${r.streams} streams`;
  return [
    `${r.shape}, ${r.threads} threads, ${work}, medians of ${r.repeats}`,
    "",
    ...table([
      ["", ...figures.map(heading), "packed", "memory", "load s"],
      ...models.map((m) => [
        m.name,
        ...figures.map((f) => m.median[f]),
        megabytes(m.packed_bytes),
        megabytes(m.memory_bytes),
        m.load_ms / 1000,
      ]),
    ]),
    ...ratioRows.length ? ["", ...table([["ratio (spread)", ...figures.map(heading)], ...ratioRows])] : [],
  ];
}
