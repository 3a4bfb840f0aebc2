/** Measures a model in a fresh worker. */
import type { DenseSpeed } from "../../bench/dense_speed.ts";
import { OatmillError } from "../../errors.ts";
import type { FromSpeedWorker, SpeedTask } from "./_speed_worker.ts";

/** A model that takes longer is too slow to be measured beside requests. */
const DEADLINE_MS = 10 * 60_000;

export type MeasureSpeed = (task: SpeedTask, signal: AbortSignal) => Promise<DenseSpeed>;

/** @throws {OatmillError} what the measurement threw; cancelled, timeout in `unavailable` */
export const measureSpeed: MeasureSpeed = async (task, signal) => {
  const worker = new Worker(new URL("./_speed_worker.ts", import.meta.url), {
    type: "module",
    name: "speed",
  });
  const { promise, resolve, reject } = Promise.withResolvers<DenseSpeed>();
  const stop = () => reject(new OatmillError("cancelled", "The measurement was ended"));
  const late = setTimeout(
    () => reject(new OatmillError("unavailable", "The measurement took more than 10 minutes")),
    DEADLINE_MS,
  );
  worker.onmessage = ({ data }: MessageEvent<FromSpeedWorker>) => {
    if (data.type === "result") resolve(data.result);
    else if (data.error.code === null) reject(new Error(data.error.message));
    else reject(new OatmillError(data.error.code, data.error.message, data.error.param));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    reject(new Error(event.message));
  };
  signal.addEventListener("abort", stop, { once: true });
  try {
    signal.throwIfAborted();
    worker.postMessage(task);
    return await promise;
  } finally {
    clearTimeout(late);
    signal.removeEventListener("abort", stop);
    worker.terminate();
  }
};
