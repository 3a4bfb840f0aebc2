/** The worker in which a model and its dense shape are measured: engines of their own, which end with it. */
/// <reference lib="deno.worker" />
import { type DenseSpeed, denseSpeed, type DenseSpeedOptions } from "../../bench/dense_speed.ts";
import { OatmillError } from "../../errors.ts";
import type { PlainError } from "../jobs.ts";

export interface SpeedTask extends Pick<DenseSpeedOptions, "threads" | "tuning"> {
  readonly artifact: string;
}
export type FromSpeedWorker =
  | { readonly type: "result"; readonly result: DenseSpeed }
  | { readonly type: "error"; readonly error: PlainError };

self.onmessage = async ({ data }: MessageEvent<SpeedTask>) => {
  const post = (message: FromSpeedWorker) => self.postMessage(message);
  try {
    post({ type: "result", result: await denseSpeed(data.artifact, data) });
  } catch (thrown) {
    const { message } = thrown instanceof Error ? thrown : new Error(String(thrown));
    const { code, param } = thrown instanceof OatmillError ? thrown : { code: null, param: null };
    post({ type: "error", error: { code, message, param } });
  }
};
