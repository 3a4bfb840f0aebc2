/**
 * The worker in which a compression job runs: takes one task, reports progress, then the result or the error. It and the
 * threads of its linear algebra have the lowest priority: requests go first.
 */
/// <reference lib="deno.worker" />
import { readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { compress } from "../compress/pipeline.ts";
import type { CompressPhase, CompressProgress, CompressResult, CompressStep } from "../compress/types.ts";
import { lowerThreadPriority } from "../engine/low_priority.ts";
import { OatmillError } from "../errors.ts";
import { extractArchive } from "../models/formats/archive.ts";
import type { CompressTask } from "./compress_task.ts";
import type { PlainError } from "./jobs.ts";

export type ToWorker =
  | { readonly type: "start"; readonly task: CompressTask }
  | { readonly type: "stop" }
  | { readonly type: "cancel" };
export type FromWorker =
  | { readonly type: "progress"; readonly progress: CompressProgress }
  | { readonly type: "step"; readonly step: CompressStep }
  | { readonly type: "result"; readonly result: CompressResult }
  | { readonly type: "error"; readonly error: PlainError };

lowerThreadPriority(); // before anything here starts another thread

const abort = new AbortController(), stop = new AbortController();
const post = (message: FromWorker) => self.postMessage(message);

self.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "cancel") return abort.abort();
  if (data.type === "stop") return stop.abort();
  try {
    post({ type: "result", result: await run(data.task) });
  } catch (error) {
    const plain = error instanceof Error ? error : new Error(String(error));
    const { code, param } = error instanceof OatmillError ? error : { code: null, param: null };
    post({ type: "error", error: { code, message: plain.message, param } });
  }
};

async function run(task: CompressTask): Promise<CompressResult> {
  let { source } = task;
  const { archive, hub } = task;
  if (archive !== null) source = await timed("read", async () => findModel(await unpacked(archive, task)));
  if (hub) source = await timed("pull", () => pulledModel(task, hub));
  abort.signal.throwIfAborted();
  return await compress({
    source,
    out: task.out,
    work: task.work,
    hidesFolders: true,
    name: task.name,
    recipe: task.recipe,
    signal: abort.signal,
    stop: stop.signal,
    onProgress: (progress) => post({ type: "progress", progress }),
    onStep: (step) => post({ type: "step", step }),
  });
}

/** A step before the compression itself. */
async function timed<T>(phase: CompressPhase, step: () => Promise<T>): Promise<T> {
  const startMs = Date.now();
  try {
    return await step();
  } finally {
    post({ type: "step", step: { phase, block: null, startMs, endMs: Date.now() } });
  }
}

const exists = (path: string): Promise<boolean> => Deno.lstat(path).then(() => true, () => false);

/** The archive's content, unpacked now or by an earlier run of the task. */
async function unpacked(archive: string, { source, maxBytes, maxFiles }: CompressTask): Promise<string> {
  if (!await exists(source)) {
    const partial = `${source}.partial`;
    await Deno.remove(partial, { recursive: true }).catch(() => {});
    await Deno.mkdir(partial);
    await extractArchive(archive, partial, { maxBytes, maxFiles });
    await Deno.rename(partial, source);
  }
  await Deno.remove(archive).catch(() => {}); // its content is unpacked: halves the disk a job needs
  return source;
}

/** A hub's model, pulled now or by an earlier run: a branch may have moved on meanwhile, the job has not. */
async function pulledModel(task: CompressTask, hub: NonNullable<CompressTask["hub"]>): Promise<string> {
  const note = `${task.source}.pulled`;
  if (await exists(note)) return join(task.source, await Deno.readTextFile(note));
  const path = await pullModel(task, hub);
  await Deno.writeTextFile(`${note}.tmp`, relative(task.source, path));
  await Deno.rename(`${note}.tmp`, note);
  return path;
}

async function pullModel(
  { source, maxBytes, maxFiles }: CompressTask,
  hub: NonNullable<CompressTask["hub"]>,
): Promise<string> {
  const { pull } = await import("../hub/pull.ts"); // few jobs need it, and it takes 5 MB of library
  const onProgress = (progress: { readonly done: number; readonly total: number }) =>
    post({ type: "progress", progress: { phase: "pull", ...progress } });
  const { path } = await pull({
    ...hub,
    folder: source,
    maxBytes,
    maxFiles,
    signal: abort.signal,
    onProgress,
  });
  return path;
}

/**
 * The one model in an unpacked archive: a folder with config.json, a .gguf or an .onnx file. A config.json that has no
 * safetensors beside it belongs to the graph.
 * @throws {OatmillError} invalid_archive
 */
async function findModel(folder: string): Promise<string> {
  const entries = (await readdir(folder, { withFileTypes: true, recursive: true })).filter((e) => e.isFile());
  const ending = (end: string) => entries.filter(({ name }) => name.endsWith(end));
  const paths = (some: typeof entries) => some.map((e) => join(e.parentPath, e.name));
  const graphs = ending(".onnx"), weights = new Set(ending(".safetensors").map((e) => e.parentPath));
  const folders = entries.filter(({ name }) => name === "config.json").map((e) => e.parentPath)
    .filter((path) => graphs.length === 0 || weights.has(path));
  const found = [...folders, ...paths(ending(".gguf")), ...paths(graphs)];
  if (found.length === 1) return found[0];
  const what = found.length === 0 ? "none" : `${found.length}`;
  throw new OatmillError(
    "invalid_archive",
    `Archive must hold one model (a config.json, a .gguf or an .onnx file), found ${what}`,
  );
}
