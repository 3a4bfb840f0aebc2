/** Compression jobs and their events. States only move forward: queued -> running -> succeeded | failed | cancelled. */
import type { DatabaseSync } from "node:sqlite";

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
}
export interface JobEvent {
  /** Rises over all jobs. */
  readonly seq: number;
  readonly atMs: number;
  readonly level: "info" | "error";
  readonly message: string;
  readonly data: unknown;
}
/** Of a job that a stop of the server ended. */
export const INTERRUPTED: JobError = {
  code: "interrupted",
  message: "The server stopped while the job was under way",
  param: null,
};
export type JobChange = Partial<
  Pick<Job, "state" | "startedMs" | "finishedMs" | "progress" | "error" | "result">
>;

const COLUMNS = {
  state: "state",
  startedMs: "started_ms",
  finishedMs: "finished_ms",
  progress: "progress",
  error: "error",
  result: "result",
} as const satisfies Record<keyof JobChange, string>;

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

  add(job: Pick<Job, "id" | "model" | "recipe" | "files">): Job {
    this.#db.prepare(
      "INSERT INTO jobs (id, model, state, created_ms, recipe, files) VALUES (?, ?, 'queued', ?, ?, ?)",
    ).run(job.id, job.model, Date.now(), JSON.stringify(job.recipe), JSON.stringify(job.files));
    return this.get(job.id)!;
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
  events(job: string, options: { afterSeq?: number; limit?: number } = {}): JobEvent[] {
    const rows = this.#db.prepare("SELECT * FROM job_events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?")
      .all(job, options.afterSeq ?? 0, options.limit ?? -1);
    return (rows as Row[]).map(eventFromRow);
  }

  /** What a former process left queued or running fails: its upload is gone. @returns their ids */
  failInterrupted(): string[] {
    const left = this.list({ limit: -1, states: ["queued", "running"] });
    for (const job of left) {
      this.change(job.id, { state: "failed", finishedMs: Date.now(), error: INTERRUPTED });
      const data = { state: "failed", error: INTERRUPTED };
      this.addEvent(job.id, { level: "error", message: INTERRUPTED.message, data });
    }
    return left.map((j) => j.id);
  }
}
