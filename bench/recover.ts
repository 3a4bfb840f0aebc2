/**
 * How fast a model is recovered, in how much memory, and what of that is matrix products: some steps of training on random
 * tokens, of a model that is there or of some blocks of a real shape.
 */
import { join } from "node:path";
import { collectGarbage } from "../engine/collect_garbage.ts";
import { readEmbedding } from "../compress/forward/dense_forward.ts";
import { LinalgPool } from "../compress/linalg/pool.ts";
import { ProgressReporter } from "../compress/progress.ts";
import { seededRandom } from "../compress/random.ts";
import {
  RECOVER_DEFAULTS,
  type RecoverKind,
  type RecoverOptions,
  type TrainedPart,
} from "../compress/recovery/options.ts";
import { recoverModel } from "../compress/recovery/recover.ts";
import type { TrainStep } from "../compress/recovery/train.ts";
import type { RecoverProgress, RecoverRun } from "../compress/recovery/types.ts";
import { Journal } from "../compress/resume/journal.ts";
import { WorkSpace } from "../compress/work_space.ts";
import { OatmillError } from "../errors.ts";
import type { Checkpoint } from "../models/checkpoint.ts";
import { openCheckpoint } from "../models/open.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { matmulShare } from "./_matmul_share.ts";
import { prunedModel } from "./pruned_model.ts";
import { writeSyntheticCheckpoint } from "./synthetic_checkpoint.ts";

export interface BenchRecoverOptions {
  /** A checkpoint's path, or a shape and how many of its blocks are made. */
  readonly source: string | { readonly shape: SyntheticShape; readonly blocks: number };
  readonly kind: RecoverKind;
  readonly train: TrainedPart;
  /** Of all linear layers of the blocks. */
  readonly rate: number;
  readonly rankRatio: number;
  /** Of each block with `blockwise`; one more comes first and is not counted. */
  readonly steps: number;
  readonly batch: number;
  readonly length: number;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RecoverProgress) => void;
}

export interface BenchRecoverReport {
  readonly source: string;
  readonly kind: RecoverKind;
  readonly train: TrainedPart;
  readonly rate: number;
  readonly blocks: number;
  readonly trained_values: number;
  readonly steps: number;
  readonly batch: number;
  readonly length: number;
  readonly threads: number;
  /** Of steps; evaluations and the dense model's pass are not in it. Median over the steps. */
  readonly tokens_per_second: number;
  /** Of one step, means; forward and gradient by the sequences that go side by side. */
  readonly step_seconds: { readonly forward: number; readonly gradient: number; readonly update: number };
  /** Of the time of one sequence, forward and back, in one thread. */
  readonly matmul_share: number;
  /** From the first step's preparation on, of the whole process. */
  readonly peak_rss_bytes: number;
}

/** @throws {OatmillError} invalid_request: no decoder, or a text longer than its context; cancelled */
export async function benchRecover(options: BenchRecoverOptions): Promise<BenchRecoverReport> {
  const folder = await Deno.makeTempDir({ prefix: "oatmill-bench-" });
  try {
    const checkpoint = await open(options, folder);
    try {
      return await measure(options, checkpoint, folder);
    } finally {
      checkpoint.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function open({ source }: BenchRecoverOptions, folder: string): Promise<Checkpoint> {
  if (typeof source === "string") return await openCheckpoint(source);
  const path = join(folder, "checkpoint"), spec = SYNTHETIC_SPECS[source.shape];
  await Deno.mkdir(path);
  await writeSyntheticCheckpoint(path, { ...spec, blocks: Math.min(source.blocks, spec.blocks) });
  return await openCheckpoint(path);
}

async function measure(
  options: BenchRecoverOptions,
  checkpoint: Checkpoint,
  folder: string,
): Promise<BenchRecoverReport> {
  const { kind, train, rate, steps, batch, length, source } = options;
  checkSource(options, checkpoint);
  const threads = options.threads ?? navigator.hardwareConcurrency;
  const model = await prunedModel(checkpoint, options), random = seededRandom(1);
  collectGarbage(); // what making the model left does not count
  const ids = () => Int32Array.from({ length }, () => random.below(checkpoint.spec.vocabSize));
  const training: Pick<RecoverRun, "model" | "checkpoint" | "sequences" | "heldOut" | "options"> = {
    model,
    checkpoint,
    sequences: Array.from({ length: batch }, ids),
    heldOut: [ids()],
    options: trainOptions(options),
  };
  const { taken, peakRssBytes } = await runSteps(training, { ...options, threads, folder });
  return {
    source: typeof source === "string" ? source : source.shape,
    kind,
    train,
    rate,
    blocks: model.blocks.length,
    trained_values: model.blocks.reduce((sum, block) => sum + block.values.length, 0),
    steps,
    batch,
    length,
    threads,
    ...speeds(taken, batch * length),
    matmul_share: await matmulShare({ ...training, embedding: await readEmbedding(checkpoint) }, folder),
    peak_rss_bytes: peakRssBytes,
  };
}

function checkSource({ length }: BenchRecoverOptions, { spec, path }: Checkpoint): void {
  const why = !spec.attention.causal
    ? "only models that write text can be recovered"
    : length > spec.contextLength
    ? `its context has ${spec.contextLength} tokens, not ${length}`
    : null;
  if (why) throw new OatmillError("invalid_request", `Cannot measure recovery of "${path}": ${why}`);
}

const trainOptions = ({ kind, train, steps, batch, length }: BenchRecoverOptions): RecoverOptions => ({
  ...RECOVER_DEFAULTS[kind],
  train,
  tokens: (steps + 1) * batch * length,
  batch,
  length,
  evaluations: 1,
});

/** Trains; @returns the steps without the first one (of each block), which makes the graphs. */
async function runSteps(
  training: Pick<RecoverRun, "model" | "checkpoint" | "sequences" | "heldOut" | "options">,
  { threads, folder, signal, onProgress }: BenchRecoverOptions & {
    readonly threads: number;
    readonly folder: string;
  },
): Promise<{ readonly taken: TrainStep[]; readonly peakRssBytes: number }> {
  using memory = new ProgressReporter({});
  using pool = new LinalgPool(threads);
  using space = WorkSpace.open(join(folder, "space"));
  const taken: TrainStep[] = [];
  const report = await recoverModel(
    { ...training, pool, space, journal: Journal.open(null), signal, onProgress },
    (step) => step.course.step > 1 && taken.push(step),
  );
  if (report.stopped === "cancelled") throw new OatmillError("cancelled", "The benchmark was cancelled");
  return { taken, peakRssBytes: memory.peakRssBytes };
}

function speeds(
  taken: readonly TrainStep[],
  tokens: number,
): Pick<BenchRecoverReport, "tokens_per_second" | "step_seconds"> {
  const mean = (of: (step: TrainStep) => number) =>
    taken.reduce((sum, step) => sum + of(step), 0) / taken.length / 1000;
  const pass = (part: "forwardMs" | "gradientMs") =>
    mean(({ passes }) => passes.reduce((sum, p) => sum + p[part], 0) / passes.length);
  const sorted = taken.map(({ stepMs }) => stepMs).toSorted((a, b) => a - b);
  return {
    tokens_per_second: 1000 * tokens / sorted[sorted.length >> 1],
    step_seconds: {
      forward: pass("forwardMs"),
      gradient: pass("gradientMs"),
      update: mean(({ updateMs }) => updateMs),
    },
  };
}
