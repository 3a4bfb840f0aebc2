/** What of a training pass is matrix products, by ONNX Runtime's own account of its steps. */
import { join } from "node:path";
import { blockObjective } from "../compress/recovery/blockwise.ts";
import { runBlockwise } from "../compress/recovery/blockwise_job.ts";
import { Buffers } from "../compress/recovery/buffers.ts";
import { distillObjective } from "../compress/recovery/distill.ts";
import { runDistill } from "../compress/recovery/distill_job.ts";
import type { Objective } from "../compress/recovery/train.ts";
import type { JobRunner, RecoverRun } from "../compress/recovery/types.ts";
import { embed, type Embedding } from "../compress/forward/dense_forward.ts";
import { LinalgRuntime } from "../compress/linalg/runtime.ts";
import { shared } from "../compress/statistics.ts";

export interface ShareOptions
  extends Pick<RecoverRun, "model" | "checkpoint" | "sequences" | "heldOut" | "options"> {
  readonly embedding: Embedding;
}

/** Operators that are products of matrices, as ONNX Runtime names them once it has joined steps. */
const PRODUCTS = /MatMul|Gemm/;

/** What a session does before it can run. */
const MAKING = /^(model_loading|session_initialization)/;

/** The first one makes the graphs, whose time does not count, and touches memory for the first time. */
const PASSES = 2;

/** @param folder for the profiles */
export async function matmulShare(options: ShareOptions, folder: string): Promise<number> {
  const profiles = join(folder, "profiles");
  await Deno.mkdir(profiles);
  const linalg = await LinalgRuntime.create(1, profiles), objective = await objectiveOf(options, linalg);
  const gradients = objective.vectors.map(({ length }) => shared(length));
  const start = performance.now();
  for (let pass = 0; pass < PASSES; pass++) await objective.pass([0], gradients);
  let ownMs = performance.now() - start, productsMs = 0;
  await linalg.close();
  for await (const { name } of Deno.readDir(profiles)) {
    const steps = JSON.parse(await Deno.readTextFile(join(profiles, name))) as ProfiledStep[];
    productsMs += sumMs(steps, isProduct);
    ownMs -= sumMs(steps, ({ name }) => MAKING.test(name));
  }
  return productsMs / ownMs;
}

interface ProfiledStep {
  readonly cat: string;
  readonly name: string;
  readonly dur: number;
  readonly args: { readonly op_name?: string };
}

const isProduct = ({ cat, args }: ProfiledStep): boolean =>
  cat === "Node" && PRODUCTS.test(args.op_name ?? "");

const sumMs = (steps: readonly ProfiledStep[], which: (step: ProfiledStep) => boolean): number =>
  steps.filter(which).reduce((sum, { dur }) => sum + dur / 1000, 0);

/** In this thread. Towards hidden states that mean nothing: time does not depend on them. */
async function objectiveOf(options: ShareOptions, linalg: LinalgRuntime): Promise<Objective> {
  const { embedding, sequences, heldOut } = options, buffers = new Buffers();
  const states = embed(embedding, [...sequences, ...heldOut], shared);
  const run = ((job: Parameters<JobRunner["run"]>[0]) => {
    if (job.kind === "distill") return runDistill(job, linalg, buffers);
    if (job.kind === "blockwise") return runBlockwise(job, linalg, buffers);
    throw new RangeError(`"${job.kind}" is no job of training`);
  }) as JobRunner["run"]; // of the kinds that an objective asks for
  const pool: JobRunner = { run, memoryBytes: 0, threads: 1, concurrent: () => 1 };
  if (options.options.kind === "distill") {
    return await distillObjective({ ...options, pool, targets: states.values });
  }
  return blockObjective({ ...options, pool }, { trained: states, dense: states }, 0);
}
