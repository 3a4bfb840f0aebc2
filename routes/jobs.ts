/**
 * Compression jobs: one runs at a time, the others wait. Each runs in a worker of its own (run_task.ts makes it), so that a
 * job that fails in any way leaves the server serving. A job outlives the server: its folder and its row hold all it needs, and
 * one that was under way when the server stopped goes on at the next start.
 */
import { type ErrorCode, OatmillError } from "../errors.ts";
import { isTraining } from "../compress/recovery/is_training.ts";
import { recoveryBody } from "../compress/recovery/recovery_body.ts";
import type { CompressProgress, CompressResult } from "../compress/types.ts";
import type { HubAccess } from "../hub/reference.ts";
import type { Recipe } from "../models/recipe.ts";
import { asStorageError, type DataFolder } from "../store/data_folder.ts";
import { ifWritable } from "../store/database.ts";
import {
  FINAL_STATES,
  INTERRUPTED,
  type Job,
  type JobError,
  type JobEvent,
  type JobFile,
  type JobProgress,
  type JobState,
  type JobStore,
} from "../store/job_store.ts";
import { RETENTION, type Retention } from "../store/retention.ts";
import { log } from "../telemetry/log.ts";
import { failSpan, type Span, type Telemetry } from "../telemetry/telemetry.ts";
import {
  AT_ONCE,
  type JobTask,
  placesIn,
  type RunTask,
  storedTask,
  taskIn,
  type TaskOptions,
} from "./compress_task.ts";
import { EtaEstimator, shareDone } from "./job_eta.ts";
import { JobFolders } from "./job_folders.ts";
import { JobProgressMeter } from "./job_progress.ts";
import { JobTrace } from "./job_trace.ts";
import { shortVersion } from "./model_reference.ts";
import type { ModelRegistry } from "./registry.ts";

/** A job that began so often without getting further than ever fails: something in it stops the server. */
const MOST_TRIES = 3;
/** How often a disk that takes no writes is asked again. */
const DISK_RETRY_MS = 1000;
const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

export interface Submission {
  readonly model: string;
  readonly recipe: Recipe;
  readonly files: readonly JobFile[];
  /** Folder in `tmp/` with the upload; the job owns it from here. */
  readonly folder: string;
  readonly task: JobTask;
}

export interface JobRunnerOptions {
  readonly jobs: JobStore;
  readonly data: DataFolder;
  readonly registry: ModelRegistry;
  readonly telemetry: Telemetry;
  /** Of the server: tokens are in no job's row. */
  readonly hub: HubAccess;
  readonly run: RunTask;
  /** Of jobs that are over; default: {@linkcode RETENTION}. */
  readonly retention?: Retention;
}

type Listener = (event: JobEvent, job: Job) => void;

interface RunningJob {
  readonly id: string;
  readonly abort: AbortController;
  /** Of its recovery alone. */
  readonly stop: AbortController;
  /** Whether that is what it is at, with a best so far that is worth keeping. */
  recovers: boolean;
  done: Promise<void>;
}
const STOPPING = "Ending the recovery with the best so far; cancel again to end the job";

export class JobRunner {
  readonly #o: JobRunnerOptions;
  readonly #folders: JobFolders;
  readonly #listeners = new Map<string, Set<Listener>>();
  #running: RunningJob | null = null;
  /** Until the rows of a former process are in order. */
  #settling: Promise<void> | null = null;
  #closed = false;

  constructor(options: JobRunnerOptions) {
    this.#o = options;
    this.#folders = new JobFolders(options.data, options.jobs);
  }

  /**
   * Puts what a former process left running back into the queue, and deletes folders that no job needs. Where the disk does
   * not take that, the queue stands still until it does.
   */
  async recover(): Promise<void> {
    try {
      this.#settle();
    } catch (error) {
      if (asStorageError(error, "queue compressions") === error) throw error;
      log("error", "compressions wait for the disk", { error: String(error) });
      this.#settling = this.#settleLater();
    }
    await this.#tidy();
  }
  async #settleLater(): Promise<void> {
    while (!this.#closed) {
      await pause(DISK_RETRY_MS);
      try {
        this.#settle();
      } catch {
        continue; // not yet
      }
      this.#settling = null;
      return this.#next();
    }
  }
  #settle(): void {
    const { jobs } = this.#o;
    for (const { id, task, state } of jobs.list({ limit: -1, states: ["queued", "running"] })) {
      if (task === null || !this.#folders.has(id)) {
        this.#finish(id, "failed", { message: INTERRUPTED.message, error: INTERRUPTED });
      } else if (state === "running") this.#putBack(id, "Waiting again: the server was started anew");
    }
  }
  /** Begins with the queue as {@linkcode recover} left it. */
  start(): void {
    this.#next();
  }

  /** The jobs that are not over and will make a version of the model. */
  makingModel(model: string): Job[] {
    return this.#o.jobs.list({ limit: -1, states: ["queued", "running"] }).filter((j) => j.model === model);
  }
  /**
   * @throws {OatmillError} unavailable after close(), conflict while the model is being deleted, storage_failed; then the
   * caller still owns the folder
   */
  submit({ model, recipe, files, folder, task }: Submission): Job {
    this.#refuseClosed();
    this.#refuseLeaving(model);
    const id = `cmp-${crypto.randomUUID()}`;
    const job = this.#folders.take(
      id,
      folder,
      () => this.#o.jobs.add({ id, model, recipe, files, task: storedTask(task, folder) }),
    );
    this.#event(id, "info", "Waiting", { state: "queued" });
    this.#next();
    return job;
  }
  /** What the job makes would bring the name back. */
  #refuseLeaving(model: string): void {
    if (!this.#o.registry.isLeaving(model)) return;
    throw new OatmillError(
      "conflict",
      `Cannot compress "${model}": it is being deleted; wait until it is, or take another name`,
      "model",
    );
  }
  #refuseClosed(): void {
    if (this.#closed) throw new OatmillError("unavailable", "The server is shutting down");
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

  /**
   * Ends a job that is not over; what it has done stays for a while. One that recovers goes on to its end with the best
   * so far, and is ended by a second call.
   * @throws {OatmillError} not_found, conflict
   */
  async cancel(id: string): Promise<Job> {
    const { state } = this.get(id);
    if (FINAL_STATES.includes(state)) {
      throw new OatmillError("conflict", `Cannot cancel compression "${id}": it is ${state}`, "id");
    }
    // One that is tried again waits in the queue while its former run is cleaned up.
    const running = this.#running;
    if (state === "running" && running?.id === id) {
      if (running.recovers && !running.stop.signal.aborted) {
        running.stop.abort();
        this.#event(id, "info", STOPPING, { state });
      } else {
        running.abort.abort();
        await running.done;
      }
    } else {
      this.#finish(id, "cancelled", { message: "Cancelled" });
      await this.#tidy();
    }
    return this.get(id);
  }
  /** A job that failed or was cancelled goes on where it stopped, behind the queue. @throws {OatmillError} not_found, conflict */
  retry(id: string): Job {
    this.#refuseClosed();
    const { state, task, model } = this.get(id);
    const why = state !== "failed" && state !== "cancelled"
      ? `it is ${state}`
      : task === null || !this.#folders.has(id)
      ? "its files are no longer kept; send the model again"
      : null;
    if (why) throw new OatmillError("conflict", `Cannot try compression "${id}" again: ${why}`, "id");
    this.#refuseLeaving(model);
    this.#o.jobs.requeue(id);
    this.#event(id, "info", "Waiting to be tried again", { state: "queued" });
    this.#next();
    return this.get(id);
  }
  /** Forgets a job that is over, with its files and events. @throws {OatmillError} not_found, conflict */
  async remove(id: string): Promise<void> {
    const { state } = this.get(id);
    if (!FINAL_STATES.includes(state)) {
      throw new OatmillError(
        "conflict",
        `Cannot delete compression "${id}": it is ${state}; cancel it first`,
        "id",
      );
    }
    this.#o.jobs.remove(id);
    await this.#folders.remove(id);
  }

  #next(): void {
    if (this.#running || this.#settling || this.#closed) return;
    const next = this.#o.jobs.next();
    if (!next) return;
    const abort = new AbortController(), stop = new AbortController();
    this.#running = { id: next.id, abort, stop, recovers: false, done: Promise.resolve() };
    this.#running.done = this.#run(next, { signal: abort.signal, stop: stop.signal })
      .catch((error) => this.#waitForDisk(next.id, { error, signal: abort.signal }))
      .finally(() => {
        this.#running = null;
        this.#next();
      });
  }
  /** The queue stands still until a disk that did not take a job's state takes it: the job waits again, or is over. */
  async #waitForDisk(
    id: string,
    { error, signal }: { readonly error: unknown; readonly signal: AbortSignal },
  ): Promise<void> {
    log("error", "compression waits for the disk", { job: id, error: String(error) });
    while (!this.#closed) {
      await pause(DISK_RETRY_MS);
      try {
        if (FINAL_STATES.includes(this.get(id).state)) return;
        if (signal.aborted) this.#finish(id, "cancelled", { message: "Cancelled" });
        else this.#putBack(id, "Waiting again: the disk did not take the job's state", { tries: 0 });
        return;
      } catch {
        // Not yet.
      }
    }
  }
  async #run(job: Job, { signal, stop }: Required<Pick<TaskOptions, "signal" | "stop">>): Promise<void> {
    const { jobs, telemetry, registry } = this.#o, { id, model } = job;
    if (job.tries >= MOST_TRIES) return this.#finish(id, "failed", stuck(job));
    jobs.change(id, { state: "running", startedMs: job.startedMs ?? Date.now(), tries: job.tries + 1 });
    this.#event(id, "info", "Running", { state: "running" });
    const trace = new JobTrace(telemetry, { "oatmill.job": id, "oatmill.model": model }), { span } = trace;
    log("info", "compression begins", { job: id, model }, span);
    const eta = new EtaEstimator(job.recipe as Recipe);
    const progress = new JobProgressMeter(telemetry, (p) => this.#progress(id, p, eta));
    try {
      const result = await this.#made(job, {
        signal,
        stop,
        onProgress: (p) => {
          if (this.#running?.id === id) this.#running.recovers = isTraining(p, this.#running.recovers);
          progress.see(p);
        },
        onStep: (step) => trace.see(step),
      });
      progress.end();
      signal.throwIfAborted();
      // The folder's name says after a crash whose it is (job_folders.ts).
      const version = await registry.add(model, result.artifact, result.header, id);
      this.#finish(id, "succeeded", {
        message: `Model "${model}" is ready: version ${shortVersion(version)}`,
        result: { version, ...resultOf(result) },
      }, span);
    } catch (thrown) {
      progress.end();
      if (this.#closed) this.#putBack(id, "Stopped with the server: goes on at its next start", { tries: 0 });
      else if (signal.aborted) this.#finish(id, "cancelled", { message: "Cancelled" }, span);
      else {
        const error = jobError(thrown, span);
        failSpan(span, error.code);
        log("error", "compression failed", { job: id, code: error.code, reason: error.message }, span);
        this.#finish(id, "failed", { message: error.message, error }, span);
      }
    } finally {
      trace.end();
      await this.#tidy();
    }
  }
  /** The artifact of this run, or of one that ended between naming the artifact and saying so. */
  async #made(
    { id, model, task }: Job,
    options: TaskOptions,
  ): Promise<CompressResult> {
    const { registry, hub, run } = this.#o, folder = this.#folders.path(id);
    if (registry.versions(model).some((version) => version.folder === id)) {
      const { earlierResult } = await import("../compress/resume/work_folder.ts"); // 60 modules that no other path needs
      const earlier = earlierResult(placesIn(folder).work);
      if (earlier) return { ...earlier, artifact: placesIn(folder).out };
    }
    return await run(taskIn(task as JobTask, { folder, model, access: hub }), options);
  }
  async #tidy(): Promise<void> {
    const { jobs, retention = RETENTION } = this.#o;
    ifWritable(() => jobs.forgetEnded(retention));
    await this.#folders.tidy().catch((error) => log("error", "cannot clean up", { error: String(error) }));
  }
  #progress(id: string, p: CompressProgress, eta: EtaEstimator): void {
    const { message, ...found } = p, seen = eta.see(p), etaSeconds = p.etaSeconds ?? seen;
    const progress = { ...found, ...etaSeconds === null ? {} : { etaSeconds } };
    const job = this.get(id), share = shareDone(p, job.recipe as Recipe) ?? 0;
    const further = share > job.reached ? { reached: share, tries: 0 } : {};
    ifWritable(() => this.#o.jobs.change(id, { progress, ...further }));
    this.#event(id, "info", message ?? `${p.phase} ${p.done}/${p.total}`, {
      progress: progressBody(progress),
    });
  }
  #finish(
    id: string,
    state: Extract<JobState, "succeeded" | "failed" | "cancelled">,
    outcome: { message: string; error?: JobError; result?: unknown },
    span?: Span,
  ): void {
    const { message, error = null, result = null } = outcome;
    this.#o.jobs.change(id, { state, finishedMs: Date.now(), error, result });
    this.#event(id, state === "failed" ? "error" : "info", message, { state, error, result });
    this.#o.telemetry.add("jobs", 1, { state });
    log("info", "compression ended", { job: id, state }, span);
  }
  #event(id: string, level: "info" | "error", message: string, data: unknown): void {
    const { jobs } = this.#o, atMs = Date.now();
    let event: JobEvent | null = null;
    ifWritable(() => event = jobs.addEvent(id, { level, message, data }));
    // Those who listen hear also what a full disk does not take; who comes again goes on behind the last event that it took.
    event ??= { seq: jobs.lastSeq(id), atMs, level, message, data };
    const job = this.get(id);
    for (const listener of [...this.#listeners.get(id) ?? []]) listener(event, job);
  }

  /** Of a job that the server's end met: it waits in its old place. */
  #putBack(id: string, message: string, change: { readonly tries?: number } = {}): void {
    this.#o.jobs.change(id, { state: "queued", ...change });
    this.#event(id, "info", message, { state: "queued" });
  }
  /** Stops the running job at once; it and those that wait go on at the next start. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#running?.abort.abort(AT_ONCE);
    await Promise.all([this.#running?.done, this.#settling]);
  }
}

/** Of a job that ended the server whenever it ran. */
function stuck({ tries, progress }: Job): { readonly message: string; readonly error: JobError } {
  const where = progress ? ` behind "${progress.phase} ${progress.done}/${progress.total}"` : "";
  const message =
    `The server ended ${tries} times while this compression ran, each time${where}: for want of ` +
    "memory, perhaps. Try it again with fewer or shorter calibration sequences, or on a larger machine";
  return { message, error: { code: INTERRUPTED.code, message, param: null } };
}

/** As answers and events have it. */
export function progressBody(progress: JobProgress) {
  const { phase, done, total, error, loss = error, tokensPerSecond, densePerplexity, etaSeconds } = progress,
    inBlocks = BLOCK_PHASES.has(phase);
  return {
    phase,
    done,
    total,
    ...error === undefined ? {} : { error },
    block: inBlocks ? done : null,
    blocks: inBlocks ? total : null,
    loss: loss ?? null,
    tokens_per_second: tokensPerSecond ?? null,
    dense_perplexity: densePerplexity ?? null,
    eta_seconds: etaSeconds === undefined ? null : Math.round(etaSeconds),
  };
}
/** Phases whose steps are blocks (of a graph its layers). */
const BLOCK_PHASES: ReadonlySet<string> = new Set(["calibrate", "allocate", "compress"]);

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
    ...header.recovery && { recovery: recoveryBody(header.recovery) },
    ..."agreement" in header ? { agreement: header.agreement } : {},
    phases,
    layers: header.layers,
  };
}

function jobError(thrown: unknown, span: Span): JobError {
  const error = asStorageError(thrown, "write the artifact");
  if (error instanceof OatmillError) return { code: error.code, message: error.message, param: error.param };
  log("error", "unexpected error", {
    where: "compression",
    error: error instanceof Error ? error.stack : String(error),
  }, span);
  const reason = error instanceof Error ? error.message : String(error);
  return { code: "internal_error", message: `Compression stopped unexpectedly: ${reason}`, param: null };
}

/** An error that crossed a worker's border. */
export interface PlainError {
  readonly code: ErrorCode | null;
  readonly message: string;
  readonly param: string | null;
}
