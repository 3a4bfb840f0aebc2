/**
 * The loop of a training: steps by the schedule, held-out loss now and then, the best parameters, an early end. What is
 * trained and towards what, the objective says.
 */
import type { LinalgPool } from "../linalg/pool.ts";
import type { SequenceLoss } from "./block_pass.ts";
import type { RecoverOptions } from "./options.ts";
import type { SharedFloats } from "./parameters.ts";
import { rateAt, SequenceOrder, stepCount } from "./schedule.ts";
import type { Course, SavedState } from "./state.ts";
import { type RatePart, TrainedValues } from "./trained_values.ts";

/** Sequences by number: those of training first, the held-out ones behind them. */
export interface Objective {
  /** What is trained, in place. */
  readonly vectors: readonly SharedFloats[];
  /** Of each; default: one rate for all. */
  readonly rates?: readonly (readonly RatePart[])[];
  /** Loss of sequences and, unless null, its gradient: one array for each vector, filled. */
  pass(sequences: readonly number[], gradients: readonly SharedFloats[] | null): Promise<SequenceLoss>;
}

export interface TrainOptions {
  readonly options: RecoverOptions;
  readonly pool: LinalgPool;
  /** Sequences of training, and behind them the held-out ones; tokens of each. */
  readonly sequences: number;
  readonly heldOut: number;
  readonly length: number;
  readonly signal?: AbortSignal;
  /** Where the course is kept, and as whose. */
  readonly state: SavedState;
  readonly subject: number;
  readonly onStep?: (step: TrainStep) => void;
}

export interface TrainStep {
  readonly course: Readonly<Course>;
  readonly steps: number;
  /** Of the step, per token. */
  readonly loss: number;
  /** Before it was shortened. */
  readonly gradientNorm: number;
  /** All passes of the step, its update, and both together. */
  readonly passes: readonly SequenceLoss[];
  readonly updateMs: number;
  readonly stepMs: number;
}

/** Trains until the tokens are used up, the loss falls no more or the signal says so; the vectors are the best then. */
export async function train(objective: Objective, options: TrainOptions): Promise<Course> {
  const trainer = new Trainer(objective, options);
  const course = await trainer.begin();
  while (!course.stopped) await trainer.step(course);
  trainer.values.restoreBest();
  return course;
}

class Trainer {
  readonly values: TrainedValues;
  readonly #steps: number;
  readonly #order: SequenceOrder;
  #lastMs = performance.now();

  constructor(readonly objective: Objective, readonly o: TrainOptions) {
    this.values = new TrainedValues(objective.vectors, o.options.batch, objective.rates);
    this.#steps = stepCount(o.options, o.length);
    this.#order = new SequenceOrder(o.sequences, o.options);
  }

  /** Where an earlier run was, or before the first step. */
  async begin(): Promise<Course> {
    const found = this.o.state.restore(this.o.subject, this.values);
    if (found) return found;
    const before = await this.#heldOutLoss();
    this.values.keepBest();
    const seconds = this.#lapSeconds();
    return { step: 0, before, best: before, withoutGain: 0, rateShare: 1, seconds, stopped: null };
  }

  async step(course: Course): Promise<void> {
    const { signal, state, subject, onStep } = this.o;
    if (signal?.aborted) return void (course.stopped = "cancelled");
    const taken = await this.#learn(course);
    course.step++;
    const done = course.step === this.#steps, every = Math.ceil(this.#steps / this.o.options.evaluations);
    if (done || course.step % every === 0) await this.#evaluate(course);
    if (done) course.stopped ??= "tokens";
    course.seconds += this.#lapSeconds();
    onStep?.({ course, steps: this.#steps, ...taken });
    await state.save(subject, this.values, course);
  }

  /** One step: the lanes' gradients side by side, then the update. */
  async #learn({ step, rateShare }: Course): Promise<Omit<TrainStep, "course" | "steps">> {
    const { options, pool, length } = this.o, sequences = this.#order.of(step), { lanes } = this.values;
    const start = performance.now();
    const shares = Array.from({ length: lanes }, (_, lane) => sequences.filter((_, i) => i % lanes === lane));
    const passes = await Promise.all(
      shares.map((share, lane) => this.objective.pass(share, this.values.gradients(lane))),
    );
    const passed = performance.now(), tokens = sequences.length * length;
    const gradientNorm = await this.values.update(pool, {
      ...options,
      rate: rateShare * rateAt(step, this.#steps, options),
      step: step + 1,
      gradientScale: 1 / tokens,
    });
    const end = performance.now(), loss = sumOf(passes) / tokens;
    return { loss, gradientNorm, passes, updateMs: end - passed, stepMs: end - start };
  }

  /**
   * Without a gain it goes on from the best parameters at half the rate. What is right for a model that lost much is too
   * much for one that lost little: 1e-4 gave the bundled model at rate 0.5, whose loss is 0.018, nothing at all.
   */
  async #evaluate(course: Course): Promise<void> {
    const loss = await this.#heldOutLoss();
    if (loss < course.best) {
      course.best = loss;
      course.withoutGain = 0;
      this.values.keepBest();
      return;
    }
    this.values.goBack();
    course.rateShare /= 2;
    if (++course.withoutGain >= this.o.options.patience) course.stopped = "early";
  }

  /** Mean over the tokens. */
  async #heldOutLoss(): Promise<number> {
    const { sequences, heldOut, length } = this.o;
    const passes = await Promise.all(
      Array.from({ length: heldOut }, (_, i) => this.objective.pass([sequences + i], null)),
    );
    return sumOf(passes) / (heldOut * length);
  }

  #lapSeconds(): number {
    const last = this.#lastMs;
    this.#lastMs = performance.now();
    return (this.#lastMs - last) / 1000;
  }
}

const sumOf = (passes: readonly SequenceLoss[]): number => passes.reduce((sum, { loss }) => sum + loss, 0);
