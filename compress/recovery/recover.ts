/** Recovery of a compressed model: what was trained away from it comes back, from the dense model's answers. */
import { readEmbedding } from "../forward/dense_forward.ts";
import { recoverBlocks } from "./blockwise.ts";
import { toModel, toTrained } from "./coordinates.ts";
import { distillObjective } from "./distill.ts";
import { keepFinished, restoreFinished } from "./finished.ts";
import { RecoverMeter } from "./meter.ts";
import { stepCount } from "./schedule.ts";
import { type Course, SavedState } from "./state.ts";
import { denseTargets } from "./targets.ts";
import { train, type TrainStep } from "./train.ts";
import type { RecoverReport, RecoverRun, StopReason } from "./types.ts";

/** Hears of each step: what benchmarks measure. */
export type OnStep = (step: TrainStep) => void;

/**
 * Trains `run.model` in place and leaves it with the best parameters by the held-out sequences, however it ends.
 * @throws {RangeError} without sequences of either kind, or when they differ in length
 * @throws {OatmillError} storage_failed, and what reading the checkpoint throws
 */
export async function recoverModel(run: RecoverRun, onStep: OnStep = () => {}): Promise<RecoverReport> {
  const { sequences, heldOut, options } = run, length = sequences[0]?.length ?? 0;
  if (heldOut.length === 0 || length === 0) throw new RangeError("Recovery needs sequences of both kinds");
  if ([...sequences, ...heldOut].some((ids) => ids.length !== length)) {
    throw new RangeError(`All sequences must have ${length} tokens`);
  }
  const embedding = await readEmbedding(run.checkpoint);
  run.model.blocks.forEach(toTrained);
  const courses = await (options.kind === "distill" ? distill : blockwise)(run, { embedding, onStep });
  run.model.blocks.forEach(toModel);
  return report(run, courses);
}

interface Means {
  readonly embedding: Awaited<ReturnType<typeof readEmbedding>>;
  readonly onStep: OnStep;
}

async function distill(run: RecoverRun, { embedding, onStep }: Means): Promise<Course[]> {
  const { options, pool, journal, costShare, signal, sequences, heldOut, model } = run,
    { length } = sequences[0];
  const reading = new RecoverMeter(
    run,
    "targets",
    model.spec.blocks * (sequences.length + heldOut.length) * length,
  );
  const targets = await denseTargets(run, embedding, (done) => {
    reading.report({ done: done * (sequences.length + heldOut.length) * length });
    return !signal?.aborted;
  });
  if (targets === null) return [];
  const objective = await distillObjective({ ...run, embedding, targets });
  const earlier = restoreFinished(journal, 0, objective.vectors);
  if (earlier) return [earlier];
  const stepTokens = options.batch * length;
  const meter = new RecoverMeter(run, "train", stepCount(options, length) * stepTokens, stepTokens);
  const course = await train(objective, {
    options,
    pool,
    signal,
    sequences: sequences.length,
    heldOut: heldOut.length,
    length,
    state: new SavedState({ journal, costShare }),
    subject: 0,
    onStep: (step) => {
      meter.report({ done: step.course.step * stepTokens, step });
      onStep(step);
    },
  });
  if (course.stopped !== "cancelled") await keepFinished(journal, 0, { vectors: objective.vectors, course });
  return [course];
}

async function blockwise(run: RecoverRun, { embedding, onStep }: Means): Promise<Course[]> {
  const { options, sequences, model: { blocks } } = run, courses: Course[] = [];
  const stepTokens = options.batch * sequences[0].length;
  const each = stepCount(options, sequences[0].length) * stepTokens;
  const meter = new RecoverMeter(run, "train", each * blocks.length, stepTokens);
  await recoverBlocks(run, embedding, {
    onBlock: (block, course) => {
      courses.push(course);
      meter.report({ done: (block + 1) * each, block });
    },
    onStep: (block, step) => {
      meter.report({ done: block * each + step.course.step * stepTokens, block, step });
      onStep(step);
    },
  });
  return courses;
}

function report({ options, sequences }: RecoverRun, courses: readonly Course[]): RecoverReport {
  const total = (of: (course: Course) => number) => courses.reduce((sum, course) => sum + of(course), 0);
  const mean = (of: (course: Course) => number) => courses.length > 0 ? total(of) / courses.length : 0;
  const steps = total(({ step }) => step), seconds = total((course) => course.seconds);
  const stepTokens = options.batch * sequences[0].length;
  return {
    kind: options.kind,
    steps,
    tokens: mean(({ step }) => step) * stepTokens,
    seconds,
    tokensPerSecond: seconds > 0 ? steps * stepTokens / seconds : 0,
    loss: { before: mean(({ before }) => before), after: mean(({ best }) => best) },
    stopped: stopReason(courses),
  };
}

/** early: of block-wise recovery, when every block ended so. */
function stopReason(courses: readonly Course[]): StopReason {
  const stops = courses.map(({ stopped }) => stopped);
  if (stops.length === 0 || stops.includes("cancelled")) return "cancelled";
  return stops.every((stop) => stop === "early") ? "early" : "tokens";
}
