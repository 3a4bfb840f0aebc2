/** The course of a training, and how it is kept so that another run goes on bit by bit. */
import type { Journal } from "../resume/journal.ts";
import { SavedStreams } from "../resume/streams.ts";
import type { TrainedValues } from "./trained_values.ts";
import type { StopReason } from "./types.ts";

/** Where a training is. */
export interface Course {
  /** Steps behind it. */
  step: number;
  /** Loss on held-out sequences: before the first step, and of the best parameters. */
  before: number;
  best: number;
  /** Evaluations since then. */
  withoutGain: number;
  /** What the schedule's rate is multiplied by: halved by every evaluation without a gain. */
  rateShare: number;
  /** Of all runs. */
  seconds: number;
  /** null: it goes on. */
  stopped: StopReason | null;
}

interface Rest {
  readonly course: Course;
  /** What is trained: with blockwise the block. */
  readonly subject: number;
}

/** In the journal. */
const STATE = "recovery";

export class SavedState {
  readonly #streams: SavedStreams<Rest>;

  /** @param options.costShare see {@linkcode SavedStreams} */
  constructor(readonly options: { readonly journal: Journal; readonly costShare?: number }) {
    this.#streams = new SavedStreams<Rest>({ ...options, name: STATE });
  }

  /** Puts back what was kept last of this subject; null: nothing was. */
  restore(subject: number, values: TrainedValues): Course | null {
    if (this.options.journal.get<{ rest: Rest }>(STATE)?.rest.subject !== subject) return null;
    return this.#streams.restore(values.parts())?.rest.course ?? null;
  }

  /** Keeps it when it is time to. */
  async save(subject: number, values: TrainedValues, course: Course): Promise<void> {
    await this.#streams.save(course.step, values.parts(), { course: { ...course }, subject })?.commit();
  }
}
