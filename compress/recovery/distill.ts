/** Distillation on next tokens: the whole model towards KL(dense || model). */
import { embed, type Embedding } from "../forward/dense_forward.ts";
import { shared, toShared } from "../statistics.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import { hasFinalNorm, type ModelSpec } from "../../models/spec.ts";
import type { Place } from "../work_space.ts";
import { keptBytes, passBytes } from "./block_pass.ts";
import type { DistillJob } from "./distill_job.ts";
import { finalNormVectors, headBytes, type HeadParameters, type NormWeights } from "./head_pass.ts";
import { trainedPart, trainedRates } from "./parameters.ts";
import { jobBytes, laneCount } from "./job_bytes.ts";
import type { Objective } from "./train.ts";
import type { JobRunner, RecoverRun } from "./types.ts";

export interface DistillContext
  extends Pick<RecoverRun, "model" | "checkpoint" | "options" | "sequences" | "heldOut"> {
  readonly pool: JobRunner;
  readonly embedding: Embedding;
  /** The dense model's last hidden states of all sequences. */
  readonly targets: Place;
}

export async function distillObjective(context: DistillContext): Promise<Objective> {
  const { model, checkpoint, options, pool, embedding, targets } = context, { spec, blocks } = model;
  const sequences = [...context.sequences, ...context.heldOut], { length } = sequences[0];
  const head: HeadParameters = {
    head: model.head,
    finalNorm: model.finalNorm,
    denseNorm: await readFinalNorm(checkpoint),
  };
  const vectors = [
    ...blocks.map((block) => trainedPart(block, options.train)),
    ...finalNormVectors(model.finalNorm),
  ];
  const bytes = distillBytes(spec, length), lanes = laneCount(vectors, options.batch);
  return {
    vectors,
    rates: blocks.map((block) => trainedRates(block, options)),
    pass(some, gradients) {
      const { values } = embed(embedding, some.map((s) => sequences[s]), shared);
      const job: DistillJob = {
        kind: "distill",
        spec,
        blocks,
        head,
        x: values as ReturnType<typeof shared>,
        length,
        targets,
        sequences: some,
        gradients,
      };
      return pool.run<"distill">(job, jobBytes(pool, bytes, lanes));
    },
  };
}

/** Of what goes through together. */
const distillBytes = (spec: ModelSpec, length: number): number =>
  passBytes(spec, length) + headBytes(spec) + spec.blocks * keptBytes(spec, length);

async function readFinalNorm(checkpoint: Checkpoint): Promise<NormWeights | null> {
  if (!hasFinalNorm(checkpoint.spec)) return null;
  const read = async (role: "finalNorm" | "finalNorm.bias") => toShared((await checkpoint.read(role)).data);
  const weight = await read("finalNorm");
  return checkpoint.has("finalNorm.bias") ? { weight, bias: await read("finalNorm.bias") } : { weight };
}
