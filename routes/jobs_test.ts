/** Jobs over ends of the server: each "server" here is a runner over the same data folder. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { Journal } from "../compress/resume/journal.ts";
import { OatmillError } from "../errors.ts";
import { recipeSchema } from "../models/recipe.ts";
import { AdapterStore } from "../store/adapter_store.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { JobStore } from "../store/job_store.ts";
import { ModelStore } from "../store/model_store.ts";
import type { Retention } from "../store/retention.ts";
import { setLogSink } from "../telemetry/log.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { fakeResult, fakeRun } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import { type CompressTask, placesIn, type RunTask } from "./compress_task.ts";
import { returnArtifacts } from "./job_folders.ts";
import { jobBody } from "./compressions.ts";
import { JobRunner } from "./jobs.ts";
import { ModelRegistry } from "./registry.ts";
import { tidyModels } from "./stored_models.ts";

type Report = Parameters<Parameters<RunTask>[1]["onProgress"]>[0];
/** Reports, then runs until it is told to stop. */
const endless = (reports: readonly Report[] = []): RunTask => (_task, { signal, onProgress }) => {
  reports.forEach(onProgress);
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
};

class Lab implements AsyncDisposable {
  readonly tasks: CompressTask[] = [];
  readonly #runners: JobRunner[] = [];
  private constructor(
    readonly data: DataFolder,
    readonly database: DatabaseSync,
    readonly jobs: JobStore,
    readonly models: ModelStore,
    readonly registry: ModelRegistry,
    readonly telemetry: Telemetry,
    readonly end: () => Promise<void>,
  ) {}

  static async make(): Promise<Lab> {
    const root = await Deno.makeTempDir(), data = await DataFolder.open(root);
    const database = openDatabase(data.database), sink = setLogSink(() => {});
    const telemetry = await Telemetry.open({ version: "test", otlp: null });
    const models = new ModelStore(database), adapters = new AdapterStore(database);
    const open = () => Promise.reject(new Error("no engine"));
    const limits = { maxLoaded: 1, idleMs: 0, keepVersions: 3 };
    const registry = new ModelRegistry({ data, models, adapters, open, ...limits, telemetry });
    return new Lab(data, database, new JobStore(database), models, registry, telemetry, async () => {
      await telemetry.close();
      database.close();
      data[Symbol.dispose]();
      setLogSink(sink);
      await Deno.remove(root, { recursive: true });
    });
  }
  /** As a server's start makes it. */
  async start(run: RunTask, retention?: Retention): Promise<JobRunner> {
    await returnArtifacts(this.data, this.jobs, this.models);
    await tidyModels(this.data, { models: this.models, adapters: new AdapterStore(this.database) });
    const { jobs, data, registry, telemetry, tasks } = this;
    const noted: RunTask = (task, options) => {
      tasks.push(task);
      return run(task, options);
    };
    const hub = { url: "http://hub.test", token: "hf_secret" };
    const runner = new JobRunner({ jobs, data, registry, telemetry, hub, run: noted, retention });
    this.#runners.push(runner);
    await runner.recover();
    runner.start();
    return runner;
  }
  async submit(runner: JobRunner, model: string): Promise<string> {
    const folder = await this.data.temporary();
    await Deno.writeTextFile(join(folder, "m.gguf"), model);
    const recipe = recipeSchema.parse({});
    const task = { archive: null, source: join(folder, "m.gguf"), recipe, maxBytes: 1, maxFiles: 1 };
    return runner.submit({ model, recipe, files: [], folder, task }).id;
  }
  state(id: string): string {
    return this.jobs.get(id)!.state;
  }
  messages(id: string): string[] {
    return this.jobs.events(id).map(({ message }) => message);
  }
  names(room: string): string[] {
    return [...Deno.readDirSync(join(this.data.root, room))].map(({ name }) => name);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const runner of this.#runners) await runner.close();
    await this.end();
  }
}
const withLab = (name: string, run: (lab: Lab) => Promise<void>) =>
  Deno.test(name, async () => {
    await using lab = await Lab.make();
    await run(lab);
  });
const conflict = (error: unknown) => error instanceof OatmillError && error.code === "conflict";

withLab("jobs go on in their order at the next start, in the same folders", async (lab) => {
  const first = await lab.start(endless());
  const ids = [await lab.submit(first, "a"), await lab.submit(first, "b"), await lab.submit(first, "c")];
  assert.deepEqual(ids.map((id) => lab.state(id)), ["running", "queued", "queued"]);
  const before = lab.jobs.events(ids[0]).at(-1)!.seq;
  await first.close();
  assert.deepEqual(ids.map((id) => lab.state(id)), ["queued", "queued", "queued"]);
  await lab.start(fakeRun);
  await until(() => ids.every((id) => lab.state(id) === "succeeded"));
  assert.deepEqual(lab.tasks.map(({ name }) => name), ["a", "a", "b", "c"]);
  assert.equal(lab.tasks[0].source, lab.tasks[1].source);
  assert.deepEqual(lab.messages(ids[0]).slice(0, 4), [
    "Waiting",
    "Running",
    "Stopped with the server: goes on at its next start",
    "Running",
  ]);
  assert.ok(lab.jobs.events(ids[0]).at(-1)!.seq > before);
  await until(() => lab.names("jobs").length === 0);
});

withLab("a job that a crash met goes on; one that crashes the server again and again fails", async (lab) => {
  const step = (done: number) => ({ phase: "compress", done, total: 10 } as const);
  const crashed = await lab.start(endless([step(3)])); // nothing tells it of its end
  const id = await lab.submit(crashed, "a");
  for (let i = 0; i < 2; i++) await lab.start(endless([step(2)]));
  assert.deepEqual([lab.state(id), lab.jobs.get(id)!.tries], ["running", 2]);
  await lab.start(endless([step(4)])); // further than ever
  assert.equal(lab.jobs.get(id)!.tries, 0);
  for (let i = 0; i < 3; i++) await lab.start(endless([step(4)]));
  await lab.start(fakeRun);
  await until(() => lab.state(id) === "failed");
  const { error } = lab.jobs.get(id)!;
  assert.match(error!.message, /ended 3 times.*compress 4\/10.*memory/);
  // Who has mended the cause tries again.
  (await lab.start(fakeRun)).retry(id);
  await until(() => lab.state(id) === "succeeded");
});

withLab("a job whose state the disk does not take goes on when it does", async (lab) => {
  const begun = Promise.withResolvers<void>(), ended = Promise.withResolvers<void>();
  const runner = await lab.start(async (task, options) => {
    begun.resolve();
    await ended.promise;
    await Deno.remove(task.out, { recursive: true }).catch(() => {}); // of the first run
    return await fakeRun(task, options);
  });
  const id = await lab.submit(runner, "a"), heard: string[] = [], seqs: number[] = [];
  runner.subscribe(id, ({ message, seq }) => heard.push(message) && seqs.push(seq));
  await begun.promise;
  const logged: string[] = [], sink = setLogSink((line) => logged.push(line));
  lab.database.exec("PRAGMA query_only = ON");
  ended.resolve();
  await until(() => logged.some((line) => line.includes("waits for the disk")));
  setLogSink(sink);
  assert.equal(heard.length, 1, "listeners hear of progress that the disk does not take");
  assert.deepEqual(seqs, [lab.jobs.events(id).at(-1)!.seq], "and come again behind what it took");
  assert.deepEqual([lab.state(id), lab.names("models")], ["running", []]);
  lab.database.exec("PRAGMA query_only = OFF");
  await until(() => lab.state(id) === "succeeded");
  assert.deepEqual(lab.messages(id).slice(0, 3), [
    "Waiting",
    "Running",
    "Waiting again: the disk did not take the job's state",
  ]);
  assert.ok(lab.registry.has("a"));
});

withLab(
  "jobs that are over are forgotten with their events: the oldest, and those of long ago",
  async (lab) => {
    const runner = await lab.start(fakeRun, { most: 2, ms: 3_600_000 }), ids: string[] = [];
    for (const model of ["a", "b", "c"]) {
      ids.push(await lab.submit(runner, model));
      await until(() => lab.state(ids.at(-1)!) === "succeeded");
    }
    await until(() => lab.jobs.get(ids[0]) === null);
    assert.deepEqual(lab.jobs.events(ids[0]), []);
    assert.deepEqual(ids.slice(1).map((id) => lab.state(id)), ["succeeded", "succeeded"]);
    assert.ok(lab.registry.has("a"), "its model stays");
    await runner.close();
    lab.jobs.change(ids[1], { finishedMs: Date.now() - 3_700_000 });
    const waiting = await lab.submit(await lab.start(endless(), { most: 2, ms: 3_600_000 }), "d");
    assert.equal(lab.jobs.get(ids[1]), null);
    assert.deepEqual([lab.state(ids[2]), lab.state(waiting)], ["succeeded", "running"]);
  },
);

withLab("a server starts while the disk takes nothing, and its jobs go on when it does", async (lab) => {
  const ids = [await lab.submit(await lab.start(endless()), "a")]; // nothing tells it of its end
  ids.push(await lab.submit(await lab.start(endless()), "b"));
  lab.database.exec("PRAGMA query_only = ON");
  const runner = await lab.start(fakeRun);
  assert.deepEqual(ids.map((id) => lab.state(id)), ["running", "queued"]);
  await assert.rejects(lab.submit(runner, "c"), { code: "storage_failed" });
  lab.database.exec("PRAGMA query_only = OFF");
  await until(() => ids.every((id) => lab.state(id) === "succeeded"));
  assert.deepEqual(lab.tasks.slice(-2).map(({ name }) => name), ["a", "b"]);
});

/** An artifact that a run in this folder has named, and what it said of it. */
async function finishedWork(folder: string, model: string) {
  const { out, work } = placesIn(folder);
  await Deno.mkdir(out);
  await Deno.writeTextFile(join(out, "oatmill.json"), "{}");
  const result = fakeResult(model, out);
  await Journal.open(work).put("result", result);
  return result;
}

withLab("a crash between a model's files and its row loses nothing", async (lab) => {
  const id = await lab.submit(await lab.start(endless()), "a"); // nothing tells it of its end
  const result = await finishedWork(lab.data.jobPath(id), "a");
  await lab.data.publish(result.artifact, id);
  const found: string[][] = [];
  await lab.start((task) => {
    found.push([...Deno.readDirSync(task.out)].map(({ name }) => name));
    return Promise.resolve(result); // as compress() does for what is finished
  });
  await until(() => lab.state(id) === "succeeded");
  assert.deepEqual(found, [["oatmill.json"]]);
  assert.deepEqual([lab.names("models"), lab.registry.get("a").folder], [[id], id]);
  await until(() => lab.names("jobs").length === 0);
});

withLab(
  "a crash between a model's row and the job's loses nothing, and makes no second version",
  async (lab) => {
    const id = await lab.submit(await lab.start(endless()), "a");
    const result = await finishedWork(lab.data.jobPath(id), "a");
    const version = await lab.registry.add("a", result.artifact, result.header, id);
    lab.tasks.splice(0);
    await lab.start(endless());
    await until(() => lab.state(id) === "succeeded");
    assert.deepEqual(lab.tasks, []);
    assert.equal((lab.jobs.get(id)!.result as { version: string }).version, version);
    assert.deepEqual([lab.names("models"), lab.registry.versions("a").length], [[id], 1]);
  },
);

withLab(
  "what failed or was cancelled can be tried again while its files are kept, the last three",
  async (lab) => {
    const failing: RunTask = () => Promise.reject(new OatmillError("storage_failed", "The disk is full"));
    const runner = await lab.start(failing), ids: string[] = [];
    for (const name of ["a", "b", "c", "d"]) {
      ids.push(await lab.submit(runner, name));
      await until(() => lab.state(ids.at(-1)!) === "failed");
    }
    await until(() => lab.names("jobs").length === 3);
    assert.throws(() => runner.retry(ids[0]), conflict);
    await runner.close();
    const second = await lab.start(fakeRun);
    assert.deepEqual(lab.names("jobs").sort(), ids.slice(1).sort());
    second.retry(ids[2]);
    await until(() => lab.state(ids[2]) === "succeeded");
    assert.throws(() => second.retry(ids[2]), conflict);
    await second.remove(ids[3]);
    assert.throws(() => second.get(ids[3]), { code: "not_found" });
    await until(() => lab.names("jobs").length === 1);
  },
);

withLab("a cancelled job keeps its files until it is deleted, and is not deleted under way", async (lab) => {
  const runner = await lab.start(endless());
  const [running, waiting] = [await lab.submit(runner, "a"), await lab.submit(runner, "b")];
  await assert.rejects(runner.remove(running), conflict);
  assert.throws(() => runner.retry(running), conflict);
  await runner.cancel(waiting);
  await runner.cancel(running);
  assert.deepEqual(lab.names("jobs").sort(), [running, waiting].sort());
  await runner.remove(running);
  runner.retry(waiting);
  assert.equal(lab.state(waiting), "running");
  await runner.close();
  assert.deepEqual(lab.names("jobs"), [waiting]);
});

withLab("jobs whose folder or task is gone fail with a reason", async (lab) => {
  const first = await lab.start(endless());
  const [a, b] = [await lab.submit(first, "a"), await lab.submit(first, "b")];
  await first.close();
  await Deno.remove(lab.data.jobPath(b), { recursive: true });
  lab.jobs.add({ id: "old", model: "old", recipe: {}, files: [] });
  await Deno.mkdir(lab.data.jobPath("nobody"));
  const second = await lab.start(endless());
  assert.deepEqual([a, b, "old"].map((id) => lab.state(id)), ["running", "failed", "failed"]);
  assert.equal(lab.jobs.get("old")!.error!.code, "interrupted");
  assert.deepEqual(lab.names("jobs"), [a]);
  await second.close();
});

withLab("a job that is tried again while others are cleaned up keeps its files", async (lab) => {
  let run: RunTask = () => Promise.reject(new OatmillError("invalid_request", "wrong"));
  const runner = await lab.start((...args) => run(...args)), ids: string[] = [];
  for (const model of ["a", "b", "c"]) {
    const id = await lab.submit(runner, model);
    await until(() => lab.state(id) === "failed");
    ids.push(id);
  }
  run = endless();
  let retried: string | undefined;
  await lab.data.removeJobs((asked) => {
    const other = ids.find((id) => id !== asked)!;
    if (retried === undefined) queueMicrotask(() => runner.retry(retried = other));
    return lab.state(asked) === "failed";
  });
  assert.deepEqual([lab.names("jobs"), lab.state(retried!)], [[retried], "running"]);
});

withLab("a job that is tried again and cancelled while its end is cleaned up is cancelled", async (lab) => {
  const runner = await lab.start(() => Promise.reject(new OatmillError("invalid_request", "wrong")));
  const id = await lab.submit(runner, "a"), cancelled = Promise.withResolvers<string>();
  runner.subscribe(id, (_event, { state }) => {
    if (state !== "failed") return;
    runner.retry(id);
    runner.cancel(id).then((job) => cancelled.resolve(job.state), cancelled.reject);
  });
  assert.equal(await cancelled.promise, "cancelled");
  assert.equal(lab.tasks.length, 1);
});

withLab("log lines of a job carry its trace", async (lab) => {
  const lines: { message: string; trace_id?: string }[] = [];
  setLogSink((line) => lines.push(JSON.parse(line)));
  const step = { phase: "compress", block: null, startMs: 0, endMs: 9 } as const;
  const runner = await lab.start((_task, { onStep }) => {
    onStep!(step);
    return Promise.reject(new Error("odd"));
  });
  const id = await lab.submit(runner, "a");
  await until(() => lab.state(id) === "failed");
  assert.deepEqual(lines.map(({ message }) => message), [
    "compression begins",
    "unexpected error",
    "compression failed",
    "compression ended",
  ]);
  assert.equal(new Set(lines.map(({ trace_id }) => trace_id)).size, 1);
  assert.match(lines[0].trace_id!, /^[0-9a-f]{32}$/);
});

withLab(
  "a job that recovers keeps the best so far when it is cancelled, and ends at the second time",
  async (lab) => {
    const stops: string[] = [];
    /** Reports its recovery; stopped it makes the model, or goes on until it is cancelled. */
    const recovering = (makes: boolean): RunTask => (task, { signal, stop, onProgress }) => {
      onProgress({ phase: "compress", done: 1, total: 1, error: 0.5 });
      onProgress({ phase: "recover", done: 1, total: 2, loss: 0.25, tokensPerSecond: 10, etaSeconds: 7 });
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        stop!.addEventListener("abort", () => {
          stops.push(task.name);
          if (makes) resolve(fakeRun(task, { signal, onProgress: () => {} }));
        });
      });
    };
    const runner = await lab.start((task, options) => recovering(task.name === "a")(task, options));
    const [a, b] = [await lab.submit(runner, "a"), await lab.submit(runner, "b")];
    const { progress } = jobBody(runner.get(a));
    assert.deepEqual([progress!.phase, progress!.loss, progress!.tokens_per_second, progress!.eta_seconds], [
      "recover",
      0.25,
      10,
      7,
    ]);
    assert.equal((await runner.cancel(a)).state, "running");
    await until(() => lab.state(a) === "succeeded");
    assert.ok(lab.messages(a).some((message) => /with the best so far; cancel again/.test(message)));
    await until(() => lab.state(b) === "running");
    assert.equal((await runner.cancel(b)).state, "running");
    assert.equal((await runner.cancel(b)).state, "cancelled");
    assert.deepEqual(stops, ["a", "b"]);
  },
);
