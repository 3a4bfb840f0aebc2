/**
 * Compression jobs: one runs at a time, the others wait. Each runs in a worker of its own (start() makes it), so that a
 * job that fails in any way leaves the server serving. Whatever a job leaves in `tmp/` is removed with its end.
 */
import { join } from "node:path";
import { type ErrorCode, OatmillError } from "../errors.ts";
import type { CompressProgress, CompressResult } from "../compress/types.ts";
import type { HubAccess, HubReference } from "../hub/reference.ts";
import type { Recipe } from "../models/recipe.ts";
import { asStorageError, removeTree } from "../store/data_folder.ts";
import {
  FINAL_STATES,
  INTERRUPTED,
  type Job,
  type JobError,
  type JobEvent,
  type JobFile,
  type JobState,
  type JobStore,
} from "../store/job_store.ts";
import { log } from "../telemetry/log.ts";
import { failSpan, type Telemetry } from "../telemetry/telemetry.ts";
import { JobProgressMeter } from "./job_progress.ts";
import { shortVersion } from "./model_reference.ts";
import type { ModelRegistry } from "./registry.ts";

export interface CompressTask {
  /** An archive to unpack first, or null. */
  readonly archive: string | null;
  /** A model of a hub to pull first. */
  readonly hub?: HubReference & { readonly access: HubAccess };
  /** Folder or file with the model; for an archive or a hub, the folder to make for it. */
  readonly source: string;
  readonly out: string;
  readonly name: string;
  readonly recipe: Recipe;
  readonly maxBytes: number;
  readonly maxFiles: number;
}
export interface TaskOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (p: CompressProgress) => void;
}
export type RunTask = (task: CompressTask, options: TaskOptions) => Promise<CompressResult>;

export interface Submission {
  readonly model: string;
  readonly recipe: Recipe;
  readonly files: readonly JobFile[];
  /** Folder in `tmp/` with the upload; the job owns it from here. */
  readonly folder: string;
  readonly task: Omit<CompressTask, "out" | "name">;
}

export interface JobRunnerOptions {
  readonly jobs: JobStore;
  readonly registry: ModelRegistry;
  readonly telemetry: Telemetry;
  readonly run: RunTask;
}

type Listener = (event: JobEvent, job: Job) => void;

export class JobRunner {
  readonly #o: JobRunnerOptions;
  readonly #waiting: { id: string; submission: Submission }[] = [];
  readonly #listeners = new Map<string, Set<Listener>>();
  #running: { id: string; abort: AbortController; done: Promise<void> } | null = null;
  #closed = false;

  constructor(options: JobRunnerOptions) {
    this.#o = options;
  }

  /** The jobs that are not over and will make a version of the model. */
  makingModel(model: string): Job[] {
    return this.#o.jobs.list({ limit: -1, states: ["queued", "running"] }).filter((j) => j.model === model);
  }
  /** @throws {OatmillError} unavailable after close(); then the caller still owns the folder */
  submit(submission: Submission): Job {
    if (this.#closed) throw new OatmillError("unavailable", "The server is shutting down");
    const { model, recipe, files } = submission;
    const job = this.#o.jobs.add({ id: `cmp-${crypto.randomUUID()}`, model, recipe, files });
    this.#waiting.push({ id: job.id, submission });
    this.#event(job.id, "info", "Waiting", { state: "queued" });
    this.#next();
    return job;
  }

  /** @throws {OatmillError} not_found */
  get(id: string): Job {
    const job = this.#o.jobs.get(id);
    if (job) return job;
    throw new OatmillError(
      "not_found",
      `Compression ${JSON.stringify(id.slice(0, 100))} does not exist`,
      "id",
    );
  }
  /** @throws {OatmillError} not_found when there is no job to come after */
  list(options: { limit: number; after?: string }): Job[] {
    if (options.after !== undefined) this.get(options.after);
    return this.#o.jobs.list(options);
  }
  events(id: string, options: { afterSeq?: number; limit?: number } = {}): JobEvent[] {
    this.get(id);
    return this.#o.jobs.events(id, options);
  }
  /** Hears every new event of a job until the returned function is called. */
  subscribe(id: string, listener: Listener): () => void {
    const set = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, set.add(listener));
    return () => {
      set.delete(listener);
      if (set.size === 0) this.#listeners.delete(id);
    };
  }

  /** Ends a job that is not over. @throws {OatmillError} not_found, conflict */
  async cancel(id: string): Promise<Job> {
    const { state } = this.get(id);
    if (FINAL_STATES.includes(state)) {
      throw new OatmillError("conflict", `Cannot cancel compression "${id}": it is ${state}`, "id");
    }
    const at = this.#waiting.findIndex((w) => w.id === id);
    if (at >= 0) {
      const [{ submission }] = this.#waiting.splice(at, 1);
      this.#finish(id, "cancelled", { message: "Cancelled" });
      await removeTree(submission.folder);
    } else if (this.#running?.id === id) {
      this.#running.abort.abort();
      await this.#running.done;
    }
    return this.get(id);
  }

  #next(): void {
    if (this.#running || this.#closed) return;
    const next = this.#waiting.shift();
    if (!next) return;
    const abort = new AbortController();
    const done = this.#run(next.id, next.submission, abort.signal).finally(() => {
      this.#running = null;
      this.#next();
    });
    this.#running = { id: next.id, abort, done };
  }
  async #run(id: string, submission: Submission, signal: AbortSignal): Promise<void> {
    const { jobs, telemetry, registry } = this.#o;
    jobs.change(id, { state: "running", startedMs: Date.now() });
    this.#event(id, "info", "Running", { state: "running" });
    const span = telemetry.startSpan("compression", {
      attributes: { "oatmill.job": id, "oatmill.model": submission.model },
    });
    const out = join(submission.folder, "artifact");
    const progress = new JobProgressMeter(telemetry, span, (p) => this.#progress(id, p));
    try {
      const task = { ...submission.task, out, name: submission.model };
      const result = await this.#o.run(task, { signal, onProgress: (p) => progress.see(p) });
      progress.end();
      signal.throwIfAborted();
      const version = await registry.add(submission.model, out, result.header);
      this.#finish(id, "succeeded", {
        message: `Model "${submission.model}" is ready: version ${shortVersion(version)}`,
        result: { version, ...resultOf(result) },
      });
    } catch (thrown) {
      progress.end();
      if (this.#closed) this.#interrupt(id);
      else if (signal.aborted) this.#finish(id, "cancelled", { message: "Cancelled" });
      else {
        const error = jobError(thrown);
        failSpan(span, error.code);
        log("error", "compression failed", { job: id, code: error.code, reason: error.message }, span);
        this.#finish(id, "failed", { message: error.message, error });
      }
    } finally {
      span.end();
      await removeTree(submission.folder).catch((error) =>
        log("error", "cannot clean up", { job: id, error: String(error) })
      );
    }
  }
  #progress(id: string, p: CompressProgress): void {
    const { phase, done, total, error } = p;
    const progress = { phase, done, total, ...error === undefined ? {} : { error } };
    this.#o.jobs.change(id, { progress });
    this.#event(id, "info", p.message ?? `${phase} ${done}/${total}`, { progress });
  }
  #finish(
    id: string,
    state: Extract<JobState, "succeeded" | "failed" | "cancelled">,
    outcome: { message: string; error?: JobError; result?: unknown },
  ): void {
    const { message, error = null, result = null } = outcome;
    this.#o.jobs.change(id, { state, finishedMs: Date.now(), error, result });
    this.#event(id, state === "failed" ? "error" : "info", message, { state, error, result });
    this.#o.telemetry.add("jobs", 1, { state });
    log("info", "compression ended", { job: id, state });
  }
  #event(id: string, level: "info" | "error", message: string, data: unknown): void {
    const event = this.#o.jobs.addEvent(id, { level, message, data });
    const job = this.get(id);
    for (const listener of [...this.#listeners.get(id) ?? []]) listener(event, job);
  }

  #interrupt(id: string): void {
    this.#finish(id, "failed", { message: INTERRUPTED.message, error: INTERRUPTED });
  }
  /** Ends the running job and those that wait, as interrupted. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#running?.abort.abort();
    await this.#running?.done;
    for (const { id, submission } of this.#waiting.splice(0)) {
      await removeTree(submission.folder);
      this.#interrupt(id);
    }
  }
}

/** Which job that is not over has the file among its own, in words; null when none has. */
export function jobNeeding(jobs: JobStore, file: string): string | null {
  const job = jobs.needing(file);
  return job === null ? null : `compression "${job}"`;
}

/** The fields of `compress --json` that do not name places on the server. */
function resultOf({ header, seconds, peakRssBytes, phases }: CompressResult): object {
  return {
    rate: header.recipe.rate,
    bytes: header.bytes,
    dense_bytes: header.denseBytes,
    seconds,
    peak_rss_bytes: peakRssBytes,
    perplexity: header.perplexity,
    ..."agreement" in header ? { agreement: header.agreement } : {},
    phases,
    layers: header.layers,
  };
}

function jobError(thrown: unknown): JobError {
  const error = asStorageError(thrown, "write the artifact");
  if (error instanceof OatmillError) return { code: error.code, message: error.message, param: error.param };
  log("error", "unexpected error", {
    where: "compression",
    error: error instanceof Error ? error.stack : String(error),
  });
  const reason = error instanceof Error ? error.message : String(error);
  return { code: "internal_error", message: `Compression stopped unexpectedly: ${reason}`, param: null };
}

/** An error that crossed a worker's border. */
export interface PlainError {
  readonly code: ErrorCode | null;
  readonly message: string;
  readonly param: string | null;
}
