/**
 * Block-wise distillation: one block after the other towards what the dense block answers, on what the recovered blocks
 * before it answer. One block is in memory.
 */
import { embed, type Embedding, type Residual } from "../forward/dense_forward.ts";
import { SavedStreams, streamParts } from "../resume/streams.ts";
import { blockSpec } from "../../models/spec.ts";
import { passBytes } from "./block_pass.ts";
import type { BlockwiseJob } from "./blockwise_job.ts";
import { keepFinished, restoreFinished } from "./finished.ts";
import { jobBytes, laneCount } from "./job_bytes.ts";
import { trainedPart, trainedRates } from "./parameters.ts";
import { type Course, SavedState } from "./state.ts";
import { forwardDense } from "./targets.ts";
import { type Objective, train, type TrainStep } from "./train.ts";
import type { JobRunner, RecoverRun } from "./types.ts";

/** Hidden states between two blocks, of all sequences: of the model that is trained, and of the dense one. */
export interface Streams {
  readonly trained: Residual;
  readonly dense: Residual;
}

export interface BlockwiseEvents {
  /** A block is finished, or was by an earlier run. */
  readonly onBlock: (block: number, course: Course) => void;
  readonly onStep: (block: number, step: TrainStep) => void;
}

const STREAMS = "recovery.streams";

/** Trains the blocks in order; ends with the first one whose course was cancelled. */
export async function recoverBlocks(
  run: RecoverRun,
  embedding: Embedding,
  { onBlock, onStep }: BlockwiseEvents,
): Promise<void> {
  const { model: { blocks }, journal, costShare } = run, width = run.model.spec.hiddenSize;
  const streams = embedTwice(run, embedding);
  const parts = streamParts({ calibration: streams.trained, heldOut: streams.dense }, width);
  const saved = new SavedStreams<null>({ journal, costShare, name: STREAMS });
  const first = saved.restore(parts)?.position ?? 0;
  for (let block = 0; block < blocks.length; block++) {
    const vectors = [trainedPart(blocks[block], run.options.train)];
    const earlier = restoreFinished(journal, block, vectors);
    if (earlier) onBlock(block, earlier);
    if (block < first) continue;
    await forwardDense(streams.dense, block, run);
    const course = earlier ?? await trainBlock(run, streams, { block, onStep });
    if (course.stopped === "cancelled") return onBlock(block, course);
    if (!earlier) {
      await keepFinished(journal, block, { vectors, course });
      onBlock(block, course);
    }
    await forwardTrained(run, streams, block);
    await saved.save(block + 1, parts, null)?.commit();
  }
}

function embedTwice({ sequences, heldOut, space }: RecoverRun, embedding: Embedding): Streams {
  const all = [...sequences, ...heldOut];
  const stream = (name: string) => embed(embedding, all, (values) => space.place(`recovery.${name}`, values));
  return { trained: stream("trained"), dense: stream("dense") };
}

function trainBlock(
  run: RecoverRun,
  streams: Streams,
  { block, onStep }: { readonly block: number; readonly onStep: BlockwiseEvents["onStep"] },
): Promise<Course> {
  const { options, pool, journal, costShare, signal, sequences, heldOut } = run;
  return train(blockObjective(run, streams, block), {
    options,
    pool,
    signal,
    sequences: sequences.length,
    heldOut: heldOut.length,
    length: sequences[0].length,
    state: new SavedState({ journal, costShare }),
    subject: block,
    onStep: (step) => onStep(block, step),
  });
}

/** Towards the dense stream, which is behind the block; the trained one is before it. */
export function blockObjective(
  run: Pick<RecoverRun, "model" | "options"> & { readonly pool: JobRunner },
  streams: Streams,
  block: number,
): Objective {
  const { model, options, pool } = run, vectors = [trainedPart(model.blocks[block], options.train)];
  const lanes = laneCount(vectors, options.batch);
  return {
    vectors,
    rates: [trainedRates(model.blocks[block], options)],
    pass: (sequences, gradients) =>
      pool.run<"blockwise">(
        {
          ...blockJob(run, streams, block),
          sequences,
          task: gradients ? "gradient" : "loss",
          ...gradients ? { gradients: gradients[0] } : {},
        },
        jobBytes(pool, passBytes(blockSpec(model.spec, block), streams.trained.length), lanes),
      ),
  };
}

/** Replaces the trained stream by what the block answers. */
async function forwardTrained(run: RecoverRun, streams: Streams, block: number): Promise<void> {
  const { pool, model } = run, { sequences, length } = streams.trained;
  const bytes = passBytes(blockSpec(model.spec, block), length), jobs = pool.concurrent(bytes);
  const all = Array.from({ length: sequences }, (_, i) => i);
  await Promise.all(Array.from({ length: jobs }, (_, job) =>
    pool.run<"blockwise">({
      ...blockJob(run, streams, block),
      sequences: all.filter((i) => i % jobs === job),
      task: "forward",
    }, bytes)));
}

const blockJob = (
  { model }: Pick<RecoverRun, "model">,
  { trained, dense }: Streams,
  block: number,
): Pick<BlockwiseJob, "kind" | "spec" | "block" | "x" | "targets" | "length"> => ({
  kind: "blockwise",
  spec: blockSpec(model.spec, block),
  block: model.blocks[block],
  x: trained.values,
  targets: dense.values,
  length: trained.length,
});
