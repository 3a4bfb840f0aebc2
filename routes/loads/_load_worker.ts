/** The worker in which a load on this server runs: its client's work must not stand in the way of answers. */
/// <reference lib="deno.worker" />
import { type LoadProgress, type LoadSummary, runLoad } from "../../bench/load/load.ts";
import { loadPlan, type LoadSpec, openTarget, type TargetSpec } from "../../bench/load/plan.ts";

export interface LoadTask {
  readonly target: TargetSpec;
  readonly spec: LoadSpec;
}
export type ToLoadWorker = { readonly type: "start"; readonly task: LoadTask } | { readonly type: "cancel" };
export type FromLoadWorker =
  | { readonly type: "progress"; readonly progress: LoadProgress }
  | { readonly type: "result"; readonly result: LoadSummary }
  | { readonly type: "error"; readonly message: string };

const abort = new AbortController();
const post = (message: FromLoadWorker) => self.postMessage(message);

self.onmessage = async ({ data }: MessageEvent<ToLoadWorker>) => {
  if (data.type === "cancel") return abort.abort();
  const { signal } = abort;
  try {
    const plan = loadPlan(await openTarget(data.task.target, null, signal), data.task.spec);
    const onProgress = (progress: LoadProgress) => post({ type: "progress", progress });
    post({ type: "result", result: await runLoad(plan, { signal, onProgress }) });
  } catch (error) {
    post({ type: "error", message: error instanceof Error ? error.message : String(error) });
  }
};
