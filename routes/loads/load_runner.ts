/** Loads on this server, started by hand: one at a time, each in a worker; the last ones are kept. */
import type { LoadProgress, LoadSummary } from "../../bench/load/load.ts";
import { OatmillError } from "../../errors.ts";
import { ifWritable } from "../../store/database.ts";
import { LOADS_KEPT, type LoadStore } from "../../store/load_store.ts";
import type { FromLoadWorker, LoadTask, ToLoadWorker } from "./_load_worker.ts";

/** How long requests under way may take to leave after a cancel. */
const CANCEL_GRACE_MS = 5_000;

export type LoadState = "running" | "succeeded" | "failed" | "cancelled";
export interface LoadRun<Settings> {
  readonly id: string;
  readonly settings: Settings;
  readonly createdMs: number;
  state: LoadState;
  finishedMs: number | null;
  /** A few a second, oldest first. */
  readonly progress: LoadProgress[];
  result: LoadSummary | null;
  error: string | null;
}

interface Running {
  readonly worker: Worker;
  readonly end: (state: LoadState, outcome?: { result?: LoadSummary; error?: string }) => void;
  grace?: ReturnType<typeof setTimeout>;
  cancelled: boolean;
}

export class LoadRunner<Settings = unknown> implements Disposable {
  readonly #store: LoadStore;
  #known: Map<string, LoadRun<Settings>> | null = null;
  #running: (Running & { readonly id: string }) | null = null;

  constructor(store: LoadStore) {
    this.#store = store;
  }
  /** Read when they are first asked for: a server's start needs none. */
  get #runs(): Map<string, LoadRun<Settings>> {
    return this.#known ??= new Map(
      this.#store.list().map(({ id, run }) => [id, run as LoadRun<Settings>]),
    );
  }

  /** Newest first. */
  list(): LoadRun<Settings>[] {
    return [...this.#runs.values()].reverse();
  }
  /** @throws {OatmillError} not_found */
  get(id: string): LoadRun<Settings> {
    const run = this.#runs.get(id);
    if (run) return run;
    throw new OatmillError(
      "not_found",
      `Load ${JSON.stringify(id.slice(0, 100))} does not exist: the server keeps the last ${LOADS_KEPT}`,
      "id",
    );
  }

  /** @throws {OatmillError} conflict while another one runs */
  start(settings: Settings, task: LoadTask): LoadRun<Settings> {
    if (this.#running) {
      throw new OatmillError("conflict", `Load "${this.#running.id}" is under way: cancel it or wait`);
    }
    const run: LoadRun<Settings> = {
      id: `load-${crypto.randomUUID()}`,
      settings,
      createdMs: Date.now(),
      state: "running",
      finishedMs: null,
      progress: [],
      result: null,
      error: null,
    };
    this.#runs.set(run.id, run);
    for (const id of [...this.#runs.keys()].slice(0, -LOADS_KEPT)) this.#runs.delete(id);
    this.#run(run, task);
    return run;
  }
  #run(run: LoadRun<Settings>, task: LoadTask): void {
    const worker = new Worker(new URL("./_load_worker.ts", import.meta.url), {
      type: "module",
      name: "load",
    });
    const end: Running["end"] = (state, { result = null, error = null } = {}) => {
      clearTimeout(running.grace);
      worker.terminate();
      this.#running = null;
      Object.assign(run, { state, result, error, finishedMs: Date.now() });
      ifWritable(() => this.#store.put({ id: run.id, createdMs: run.createdMs, run }));
    };
    const running: Running & { id: string } = { id: run.id, worker, end, cancelled: false };
    this.#running = running;
    worker.onmessage = ({ data }: MessageEvent<FromLoadWorker>) => {
      if (data.type === "progress") run.progress.push(data.progress);
      else if (data.type === "result") end(running.cancelled ? "cancelled" : "succeeded", data);
      else if (running.cancelled) end("cancelled");
      else end("failed", { error: data.message });
    };
    worker.onerror = (event) => {
      event.preventDefault();
      end("failed", { error: event.message });
    };
    worker.postMessage({ type: "start", task } satisfies ToLoadWorker);
  }

  /** What was measured until then is kept. @throws {OatmillError} not_found, conflict when it is over */
  cancel(id: string): LoadRun<Settings> {
    const run = this.get(id), running = this.#running;
    if (running?.id !== id) {
      throw new OatmillError("conflict", `Cannot cancel load "${id}": it is ${run.state}`, "id");
    }
    running.cancelled = true;
    running.worker.postMessage({ type: "cancel" } satisfies ToLoadWorker);
    running.grace ??= setTimeout(() => running.end("cancelled"), CANCEL_GRACE_MS);
    return run;
  }
  [Symbol.dispose](): void {
    this.#running?.end("cancelled");
  }
}
