/** `report`: models side by side, as a page, as Markdown and as JSON. */
import { readTask } from "../compress/evaluation/choice_task.ts";
import { modelReport } from "../bench/model_report.ts";
import { rowsNamed } from "./bench_compress_rows.ts";
import { MarkdownFile } from "./markdown_file.ts";
import { note, printResult, ProgressBar } from "./output.ts";
import { comparisonHtml, comparisonMarkdown } from "./report/comparison.ts";
import { tuningOf } from "./tuning.ts";

export interface ReportOptions {
  readonly out?: string;
  readonly markdown?: string;
  readonly text: string;
  readonly maxTokens: number;
  readonly window: number;
  readonly rows: string[];
  readonly calibration?: string;
  readonly sequences: number;
  readonly length: number;
  readonly results: string;
  readonly tasks?: readonly string[];
  readonly data?: string;
  readonly limit?: number;
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly streams: number;
  readonly repeats: number;
  readonly autotune?: boolean;
  readonly threads?: number;
  readonly json?: boolean;
}

export async function reportCommand(models: readonly string[], options: ReportOptions): Promise<void> {
  // What cannot be read is said before anything is compressed.
  const content = await Deno.readTextFile(options.text);
  const { tasks: names = [], data, calibration, sequences, length, results } = options;
  const tasks = new Map(
    await Promise.all(names.map(async (name) => [name, await readTask(data!, name)] as const)),
  );
  const file = options.markdown && await MarkdownFile.open(options.markdown);
  const bar = new ProgressBar();
  const { maxTokens, window, limit, promptTokens, decodeTokens, streams, repeats, threads } = options;
  const report = await modelReport({
    models,
    rows: rowsNamed(options.rows),
    calibration: { text: calibration ?? "self", sequences, length },
    folder: results,
    text: { content, file: options.text, maxTokens, window },
    tasks,
    command: `deno task oatmill ${Deno.args.map(quoted).join(" ")}`,
    limit,
    promptTokens,
    decodeTokens,
    streams,
    repeats,
    threads,
    tuning: tuningOf(options),
    onProgress: (phase, done, total) => bar.show({ phase, done, total }),
  });
  bar.end();
  const { out } = options;
  if (out !== undefined) {
    await Deno.writeTextFile(out, await comparisonHtml(report));
    note(`Wrote ${out}`);
  }
  if (file) {
    await file.write(comparisonMarkdown(report));
    note(`Wrote ${options.markdown}`);
  }
  printResult(report, { json: options.json, lines: () => [comparisonMarkdown(report).trimEnd()] });
}

/** As a shell takes it. */
const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
