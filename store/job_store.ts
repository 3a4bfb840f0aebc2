/**
 * Compression jobs and their events. queued -> running -> succeeded | failed | cancelled; running -> queued when the server
 * stops; failed | cancelled -> queued when the job is tried again. The queue is what is queued, the longest first.
 */
import type { DatabaseSync } from "node:sqlite";
import type { Retention } from "./retention.ts";

export type JobState = "queued" | "running" | "succeeded" | "failed" | "cancelled";
export const FINAL_STATES: readonly JobState[] = ["succeeded", "failed", "cancelled"];

export interface JobError {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
}
export interface JobProgress {
  readonly phase: string;
  readonly done: number;
  readonly total: number;
  /** Mean relative layer error so far. */
  readonly error?: number;
  /** Of the dense model, once it is measured. */
  readonly densePerplexity?: number;
  /** Of a recovery's last step. */
  readonly loss?: number;
  readonly tokensPerSecond?: number;
  /** At the speed so far. */
  readonly etaSeconds?: number;
}
export interface JobFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Of a file that was stored before the job (file_storage.ts). */
  readonly id?: string;
}
export interface Job {
  readonly id: string;
  /** The name the model gets. */
  readonly model: string;
  readonly state: JobState;
  readonly createdMs: number;
  readonly startedMs: number | null;
  readonly finishedMs: number | null;
  readonly recipe: unknown;
  readonly files: readonly JobFile[];
  readonly progress: JobProgress | null;
  readonly error: JobError | null;
  readonly result: unknown;
  /** What it is to do, as the caller stored it; null of a job from before tasks were stored. */
  readonly task: unknown;
  /** Starts since it last got further than ever. */
  readonly tries: number;
  /** How far that was, as the caller counts. */
  readonly reached: number;
}
export interface JobEvent {
  /** Rises over all jobs. */
  readonly seq: number;
  readonly atMs: number;
  readonly level: "info" | "error";
  readonly message: string;
  readonly data: unknown;
}
/** Of a job that a stop of the server ended for good: its files are gone. */
export const INTERRUPTED: JobError = {
  code: "interrupted",
  message: "The server stopped while the job was under way",
  param: null,
};
export type JobChange = Partial<
  Pick<
    Job,
    "state" | "startedMs" | "finishedMs" | "progress" | "error" | "result" | "tries" | "reached"
  >
>;

const COLUMNS = {
  state: "state",
  startedMs: "started_ms",
  finishedMs: "finished_ms",
  progress: "progress",
  error: "error",
  result: "result",
  tries: "tries",
  reached: "reached",
} as const satisfies Record<keyof JobChange, string>;

export type NewJob = Pick<Job, "id" | "model" | "recipe" | "files"> & Partial<Pick<Job, "task">>;

type Row = Record<string, string | number | null>;
const parsed = (v: string | number | null) => v === null ? null : JSON.parse(v as string);
const jobFromRow = (r: Row): Job => ({
  id: r.id as string,
  model: r.model as string,
  state: r.state as JobState,
  createdMs: r.created_ms as number,
  startedMs: r.started_ms as number | null,
  finishedMs: r.finished_ms as number | null,
  recipe: parsed(r.recipe),
  files: parsed(r.files),
  progress: parsed(r.progress),
  error: parsed(r.error),
  result: parsed(r.result),
  task: parsed(r.task),
  tries: r.tries as number,
  reached: r.reached as number,
});
const eventFromRow = (r: Row): JobEvent => ({
  seq: r.seq as number,
  atMs: r.at_ms as number,
  level: r.level as "info" | "error",
  message: r.message as string,
  data: parsed(r.data),
});

export class JobStore {
  readonly #db: DatabaseSync;
  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  add({ id, model, recipe, files, task = null }: NewJob): Job {
    const json = [recipe, files, task].map((value) => JSON.stringify(value));
    this.#db.prepare(
      `INSERT INTO jobs (id, model, state, created_ms, queued_ms, recipe, files, task)
       VALUES (?1, ?2, 'queued', ?3, ?3, ?4, ?5, ?6)`,
    ).run(id, model, Date.now(), ...json);
    return this.get(id)!;
  }
  /** The job that waits the longest. */
  next(): Job | null {
    const row = this.#db.prepare(
      "SELECT * FROM jobs WHERE state = 'queued' ORDER BY queued_ms, rowid LIMIT 1",
    ).get();
    return row ? jobFromRow(row as Row) : null;
  }
  /** Puts a job that is over behind all others of the queue, as if it was new. */
  requeue(id: string): void {
    this.#db.prepare(
      `UPDATE jobs SET state = 'queued', queued_ms = ?, started_ms = NULL, finished_ms = NULL, error = NULL,
         tries = 0, reached = 0 WHERE id = ?`,
    ).run(Date.now(), id);
  }
  /** With its events. */
  remove(id: string): void {
    this.#db.prepare("DELETE FROM jobs WHERE id = ?").run(id);
  }
  /** Removes jobs that have been over for too long, and all but the newest of those that are over. */
  forgetEnded({ most, ms }: Retention): void {
    this.#db.prepare(
      `DELETE FROM jobs WHERE state IN (SELECT value FROM json_each(?1)) AND (finished_ms < ?2 OR id NOT IN (
         SELECT id FROM jobs WHERE state IN (SELECT value FROM json_each(?1))
         ORDER BY finished_ms DESC, rowid DESC LIMIT ?3))`,
    ).run(JSON.stringify(FINAL_STATES), Date.now() - ms, most);
  }
  get(id: string): Job | null {
    const row = this.#db.prepare("SELECT * FROM jobs WHERE id = ?").get(id);
    return row ? jobFromRow(row as Row) : null;
  }
  /** Newest first; `after` is the id of the last job of the former page. */
  list(options: { limit?: number; after?: string; states?: readonly JobState[] } = {}): Job[] {
    const { limit = 100, after = null, states = null } = options;
    const rows = this.#db.prepare(
      `SELECT * FROM jobs
       WHERE (?1 IS NULL OR rowid < (SELECT rowid FROM jobs WHERE id = ?1))
         AND (?2 IS NULL OR state IN (SELECT value FROM json_each(?2)))
       ORDER BY rowid DESC LIMIT ?3`,
    ).all(after, states === null ? null : JSON.stringify(states), limit);
    return (rows as Row[]).map(jobFromRow);
  }
  /** @returns the id of a job that is not over and has this file among its own */
  needing(file: string): string | null {
    const row = this.#db.prepare(
      `SELECT id FROM jobs WHERE state IN ('queued', 'running')
         AND EXISTS (SELECT 1 FROM json_each(jobs.files) WHERE value ->> 'id' = ?) LIMIT 1`,
    ).get(file);
    return (row as { id: string } | undefined)?.id ?? null;
  }
  change(id: string, change: JobChange): void {
    const keys = Object.keys(change) as (keyof JobChange)[];
    const values = keys.map((k) => {
      const value = change[k] ?? null;
      return value !== null && typeof value === "object"
        ? JSON.stringify(value)
        : value as string | number | null;
    });
    const assignments = keys.map((k) => `${COLUMNS[k]} = ?`).join(", ");
    this.#db.prepare(`UPDATE jobs SET ${assignments} WHERE id = ?`).run(...values, id);
  }

  addEvent(job: string, event: Pick<JobEvent, "level" | "message" | "data">): JobEvent {
    const row = this.#db.prepare(
      "INSERT INTO job_events (job, at_ms, level, message, data) VALUES (?, ?, ?, ?, ?) RETURNING *",
    ).get(job, Date.now(), event.level, event.message, JSON.stringify(event.data ?? null));
    return eventFromRow(row as Row);
  }
  /** Of the job's newest event; 0 without any. */
  lastSeq(job: string): number {
    const row = this.#db.prepare("SELECT max(seq) AS seq FROM job_events WHERE job = ?").get(job);
    return (row as { seq: number | null }).seq ?? 0;
  }
  events(job: string, options: { afterSeq?: number; limit?: number } = {}): JobEvent[] {
    const rows = this.#db.prepare("SELECT * FROM job_events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?")
      .all(job, options.afterSeq ?? 0, options.limit ?? -1);
    return (rows as Row[]).map(eventFromRow);
  }
}
