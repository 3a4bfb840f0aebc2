/** Models measured beside dense ones of their shape, by hand: one at a time; what was found is kept with the version. */
import type { DenseSpeed } from "../../bench/dense_speed.ts";
import { OatmillError } from "../../errors.ts";
import { ifWritable } from "../../store/database.ts";
import type { SpeedStore } from "../../store/speed_store.ts";
import { log } from "../../telemetry/log.ts";
import type { SpeedTask } from "./_speed_worker.ts";
import type { MeasureSpeed } from "./measure_speed.ts";

export interface ModelSpeed {
  readonly model: string;
  readonly version: string;
  readonly madeMs: number;
  readonly state: "running" | "succeeded" | "failed";
  readonly result: DenseSpeed | null;
  readonly error: string | null;
}
type About = Pick<ModelSpeed, "model" | "version">;

export interface SpeedRunnerOptions extends Pick<SpeedTask, "threads" | "tuning"> {
  readonly store: SpeedStore;
  readonly measure: MeasureSpeed;
}

export class SpeedRunner implements Disposable {
  readonly #o: SpeedRunnerOptions;
  /** Under way, or the last one when it failed. */
  #last: ModelSpeed | null = null;
  #abort: AbortController | null = null;

  constructor(options: SpeedRunnerOptions) {
    this.#o = options;
  }

  list(): ModelSpeed[] {
    const kept = this.#o.store.list().map(({ speed }) => speed as ModelSpeed);
    const last = this.#last;
    return last ? [last, ...kept.filter((one) => !isSame(one, last))] : kept;
  }

  /** @throws {OatmillError} conflict while another one is measured */
  start(about: About, artifact: string): ModelSpeed {
    if (this.#abort) {
      throw new OatmillError(
        "conflict",
        `The speed of "${this.#last!.model}" is being measured: wait for its end`,
      );
    }
    this.#abort = new AbortController();
    const running: ModelSpeed = { ...about, madeMs: Date.now(), state: "running", result: null, error: null };
    this.#last = running;
    this.#run(running, artifact, this.#abort.signal);
    return running;
  }
  async #run(running: ModelSpeed, artifact: string, signal: AbortSignal): Promise<void> {
    const { measure, threads, tuning, store } = this.#o;
    try {
      const result = await measure({ artifact, threads, tuning }, signal);
      const speed: ModelSpeed = { ...running, state: "succeeded", result };
      this.#last = null;
      ifWritable(() => store.put({ ...speed, speed }));
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      this.#last = { ...running, state: "failed", error };
      if (!signal.aborted) log("error", "measuring a speed failed", { model: running.model, reason: error });
    } finally {
      this.#abort = null;
    }
  }
  [Symbol.dispose](): void {
    this.#abort?.abort();
  }
}

const isSame = (a: About, b: About): boolean => a.model === b.model && a.version === b.version;
