/** What a recovery says of its progress. */
import type { TrainStep } from "./train.ts";
import type { RecoverProgress, RecoverRun } from "./types.ts";

interface Passed {
  /** Tokens of the phase. */
  readonly done: number;
  readonly block?: number;
  readonly step?: TrainStep;
}

export class RecoverMeter {
  readonly #startMs = performance.now();
  /** Where this run began. */
  #first: number | null = null;

  constructor(
    readonly run: Pick<RecoverRun, "onProgress">,
    readonly phase: RecoverProgress["phase"],
    readonly total: number,
    readonly stepTokens = 0,
  ) {}

  report({ done, block, step }: Passed): void {
    this.#first ??= step ? done - this.stepTokens : done;
    const seconds = (performance.now() - this.#startMs) / 1000;
    const tokensPerSecond = Math.max(0, done - this.#first) / seconds;
    this.run.onProgress?.({
      phase: this.phase,
      done,
      total: this.total,
      block: block ?? null,
      loss: step?.loss ?? null,
      heldOutLoss: step?.course.best ?? null,
      tokensPerSecond,
      etaSeconds: tokensPerSecond > 0 ? (this.total - done) / tokensPerSecond : 0,
    });
  }
}
