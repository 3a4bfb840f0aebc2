/** `bench compress --synthetic`. */
import { benchCompress, type BenchCompressReport } from "../bench/compress_synthetic.ts";
import type { RecipeInput } from "../models/recipe.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { readRecipe } from "./compress.ts";
import { megabytes, printResult, ProgressBar } from "./output.ts";

export interface BenchCompressCommandOptions {
  readonly synthetic: SyntheticShape;
  readonly blocks: number;
  readonly recipe?: string;
  readonly sequences: number;
  readonly length: number;
  /** MiB */
  readonly workMemory?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

export async function benchCompressCommand(options: BenchCompressCommandOptions): Promise<void> {
  const bar = new ProgressBar();
  const abort = new AbortController();
  const stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const report = await benchCompress({
      shape: options.synthetic,
      blocks: options.blocks,
      recipe: await readRecipe(options.recipe) as RecipeInput, // compress() checks it
      sequences: options.sequences,
      length: options.length,
      threads: options.threads,
      workMemoryBytes: options.workMemory === undefined ? undefined : options.workMemory * 2 ** 20,
      signal: abort.signal,
      onProgress: (p) => bar.show(p),
    });
    bar.end();
    printResult(report, { json: options.json, lines: () => reportLines(report) });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}

function reportLines(r: BenchCompressReport): string[] {
  const phases = Object.entries(r.phases).map(([phase, seconds]) => `${phase} ${seconds.toFixed(1)}`);
  return [
    `${r.shape}, ${r.blocks} blocks, ${r.method} at rate ${r.rate}, ${r.sequences} x ${r.length} tokens`,
    `took         ${r.seconds.toFixed(1)} s (${phases.join(", ")})`,
    `memory       ${megabytes(r.peak_rss_bytes)} at most`,
    `whole model  ${r.whole.hours.toFixed(1)} h for ${r.whole.blocks} blocks`,
  ];
}
