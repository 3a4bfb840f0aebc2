/** Runs one compression task in a fresh worker. */
import { OatmillError } from "../errors.ts";
import type { CompressResult } from "../compress/types.ts";
import type { FromWorker, ToWorker } from "./_compress_worker.ts";
import { AT_ONCE, type CompressTask, type TaskOptions } from "./compress_task.ts";

const cancelled = () => new OatmillError("cancelled", "Compression was cancelled");

/** How long a cancelled task may take to clean up before its worker is stopped. */
const CANCEL_GRACE_MS = 5_000;

/** @throws {OatmillError} what the task threw; cancelled when the signal ended it */
export async function runTask(task: CompressTask, options: TaskOptions): Promise<CompressResult> {
  const { signal, stop, onProgress, onStep } = options;
  const worker = new Worker(new URL("./_compress_worker.ts", import.meta.url), {
    type: "module",
    name: "compression",
  });
  const send = (message: ToWorker) => worker.postMessage(message);
  let grace: ReturnType<typeof setTimeout> | undefined;
  const { promise, resolve, reject } = Promise.withResolvers<CompressResult>();
  const cancel = () => {
    if (signal.reason === AT_ONCE) return reject(cancelled()); // what is kept is whole at any moment
    send({ type: "cancel" });
    grace = setTimeout(() => reject(cancelled()), CANCEL_GRACE_MS);
  };
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if (data.type === "progress") onProgress(data.progress);
    else if (data.type === "step") onStep?.(data.step);
    else if (data.type === "result") resolve(data.result);
    else if (data.error.code === null) reject(new Error(data.error.message));
    else reject(new OatmillError(data.error.code, data.error.message, data.error.param));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    reject(new Error(event.message));
  };
  const stopRecovery = () => send({ type: "stop" });
  signal.addEventListener("abort", cancel, { once: true });
  stop?.addEventListener("abort", stopRecovery, { once: true });
  try {
    signal.throwIfAborted();
    send({ type: "start", task });
    return await promise;
  } finally {
    clearTimeout(grace);
    signal.removeEventListener("abort", cancel);
    stop?.removeEventListener("abort", stopRecovery);
    worker.terminate();
  }
}
