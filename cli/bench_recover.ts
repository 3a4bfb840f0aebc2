/** `bench recover`. */
import { fileURLToPath } from "node:url";
import { benchRecover, type BenchRecoverReport } from "../bench/recover.ts";
import type { RecoverKind, TrainedPart } from "../compress/recovery/options.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { megabytes, printResult, ProgressBar } from "./output.ts";

/** The bundled model: what there is to measure everywhere. */
const BUNDLED = fileURLToPath(new URL("../models/default/", import.meta.url));

export interface BenchRecoverCommandOptions {
  readonly synthetic?: SyntheticShape;
  readonly blocks: number;
  readonly kind: RecoverKind;
  readonly train: TrainedPart;
  readonly rate: number;
  readonly rankRatio: number;
  readonly steps: number;
  readonly batch: number;
  readonly length: number;
  readonly threads?: number;
  readonly json?: boolean;
}

export async function benchRecoverCommand(
  model: string | undefined,
  { synthetic, blocks, json, ...options }: BenchRecoverCommandOptions,
): Promise<void> {
  const bar = new ProgressBar(), abort = new AbortController();
  const stop = () => abort.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const report = await benchRecover({
      ...options,
      source: synthetic ? { shape: synthetic, blocks } : model ?? BUNDLED,
      signal: abort.signal,
      onProgress: ({ phase, done, total }) => bar.show({ phase, done, total }),
    });
    bar.end();
    printResult(report, { json, lines: () => reportLines(report) });
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}

function reportLines(r: BenchRecoverReport): string[] {
  const { forward, gradient, update } = r.step_seconds;
  const seconds = (s: number) => `${s.toFixed(2)} s`;
  return [
    `${r.source}, ${r.blocks} blocks, ${r.kind} of ${r.train} at rate ${r.rate}: ${r.trained_values} values`,
    `training     ${
      r.tokens_per_second.toFixed(1)
    } tokens/s, ${r.batch} x ${r.length} tokens a step, ${r.threads} threads`,
    `a step       forward ${seconds(forward)}, gradient ${seconds(gradient)}, update ${seconds(update)}`,
    `products     ${(100 * r.matmul_share).toFixed(0)} % of a pass`,
    `memory       ${megabytes(r.peak_rss_bytes)} at most`,
  ];
}
