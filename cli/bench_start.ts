/** `bench start`. */
import { benchStart, type BenchStartReport, type StartRun } from "../bench/start.ts";
import { megabytes, printResult, ProgressBar, table } from "./output.ts";

export interface BenchStartCommandOptions {
  readonly repeats: number;
  readonly threads?: number;
  readonly json?: boolean;
}

export async function benchStartCommand(path: string, options: BenchStartCommandOptions): Promise<void> {
  const bar = new ProgressBar();
  const report = await benchStart(path, {
    ...options,
    onProgress: (done, total) => bar.show({ phase: "start", done, total }),
  });
  bar.end();
  printResult(report, { json: options.json, lines: () => startTable(report) });
}

function startTable({ artifact, weights_bytes, repeats, median, spread }: BenchStartReport): string[] {
  const keys = Object.keys(median) as (keyof StartRun)[];
  return [
    `${artifact}, ${megabytes(weights_bytes)} of weights, medians of ${repeats} starts`,
    ...table([
      ["", "median", "least", "most"],
      ...keys.map((k) => [k.replaceAll("_", " "), median[k], spread[k].min, spread[k].max]),
    ]),
  ];
}
