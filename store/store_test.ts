import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { DataFolder } from "./data_folder.ts";
import { openDatabase } from "./database.ts";
import { UploadStore } from "./upload_store.ts";
import { JobStore } from "./job_store.ts";
import { LOADS_KEPT, LoadStore } from "./load_store.ts";
import { storeStream, uploadKind, UploadQuota } from "./upload.ts";

async function withFolder(run: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await run(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}
const code = (expected: string) => (error: unknown) =>
  error instanceof OatmillError && error.code === expected;
const names = (path: string) => [...Deno.readDirSync(path)].map((e) => e.name).sort();

Deno.test("DataFolder empties tmp/ at start and publishes by rename", () =>
  withFolder(async (path) => {
    await Deno.mkdir(join(path, "tmp", "left"), { recursive: true });
    using folder = await DataFolder.open(path);
    assert.deepEqual(names(join(path, "tmp")), []);
    const temporary = await folder.temporary();
    await Deno.writeTextFile(join(temporary, "a"), "a");
    const name = await folder.publish(temporary);
    assert.deepEqual(names(folder.modelPath(name)), ["a"]);
    assert.deepEqual(names(join(path, "tmp")), []);
    await folder.remove(name);
    assert.deepEqual(names(join(path, "models")), []);
    assert.deepEqual(names(join(path, "tmp")), []);
  }));

Deno.test("DataFolder removes model folders that no model owns", () =>
  withFolder(async (path) => {
    using folder = await DataFolder.open(path);
    const [kept, orphan] = [
      await folder.publish(await folder.temporary()),
      await folder.publish(await folder.temporary()),
    ];
    assert.deepEqual(await folder.removeOrphans("models", new Set([kept])), [orphan]);
    assert.deepEqual(names(join(path, "models")), [kept]);
  }));

Deno.test("DataFolder refuses a folder that another process uses", () =>
  withFolder(async (path) => {
    using _first = await DataFolder.open(path);
    await assert.rejects(DataFolder.open(path), code("conflict"));
  }));

Deno.test("JobStore keeps states, progress and events; a page starts after a job", () => {
  const db = openDatabase(":memory:");
  const store = new JobStore(db);
  for (const id of ["a", "b", "c"]) store.add({ id, model: id, recipe: { rate: 0.3 }, files: [] });
  store.change("a", { state: "running", startedMs: 1, progress: { phase: "read", done: 1, total: 2 } });
  store.addEvent("a", { level: "info", message: "one", data: null });
  const { seq } = store.addEvent("a", { level: "info", message: "two", data: { n: 1 } });
  assert.equal(store.get("a")!.progress!.phase, "read");
  assert.deepEqual(store.list({ limit: 1, after: "c" }).map((j) => j.id), ["b"]);
  assert.deepEqual(store.list({ states: ["running"] }).map((j) => j.id), ["a"]);
  assert.deepEqual(store.events("a", { afterSeq: seq - 1 }).map((e) => e.data), [{ n: 1 }]);
  db.close();
});

Deno.test("JobStore is a queue: the longest waiting first, those that are tried again last", () => {
  const db = openDatabase(":memory:");
  const store = new JobStore(db);
  const tasks = ["a", "b", "c"].map((id) =>
    store.add({ id, model: id, recipe: {}, files: [], task: { id } })
  );
  assert.deepEqual(tasks.map((job) => job.task), [{ id: "a" }, { id: "b" }, { id: "c" }]);
  assert.equal(store.next()!.id, "a");
  store.change("a", { state: "running", tries: 2, reached: 0.5 });
  assert.equal(store.next()!.id, "b");
  store.change("a", { state: "queued" });
  assert.equal(store.next()!.id, "a");
  const error = { code: "x", message: "y", param: null };
  store.change("a", { state: "failed", startedMs: 1, finishedMs: 2, error });
  store.requeue("a");
  const { state, startedMs, finishedMs, tries, reached, error: none } = store.get("a")!;
  assert.deepEqual([state, startedMs, finishedMs, tries, reached, none], ["queued", null, null, 0, 0, null]);
  store.change("b", { state: "succeeded" });
  store.change("c", { state: "succeeded" });
  assert.equal(store.next()!.id, "a");
  store.addEvent("a", { level: "info", message: "one", data: null });
  store.remove("a");
  assert.deepEqual([store.next(), store.get("a"), store.events("a")], [null, null, []]);
  db.close();
});

Deno.test("LoadStore keeps the last loads, oldest first, and takes one twice for one", () => {
  const store = new LoadStore(openDatabase(":memory:"));
  const ids = Array.from({ length: LOADS_KEPT + 3 }, (_, i) => `load-${i}`);
  for (const [i, id] of ids.entries()) store.put({ id, createdMs: i, run: { id } });
  store.put({ id: ids.at(-1)!, createdMs: ids.length - 1, run: { id: "again" } });
  const kept = store.list();
  assert.deepEqual(kept.map(({ id }) => id), ids.slice(3));
  assert.deepEqual(kept.at(-1)!.run, { id: "again" });
});

Deno.test("UploadStore forgets uploads that are over, the oldest and those of long ago, and none that is not", () => {
  const store = new UploadStore(openDatabase(":memory:")), now = Date.now();
  const about = { createdMs: 0, filename: "f", purpose: "p", bytes: 1 };
  for (const id of ["waits", "old", "first", "second", "third"]) store.add({ id, expiresMs: 0, ...about });
  store.finish("old", { state: "expired", expiresMs: now - 2000 });
  ["first", "second", "third"].forEach((id, i) =>
    store.finish(id, { state: "cancelled", expiresMs: now + i })
  );
  const left = () => ["waits", "old", "first", "second", "third"].filter((id) => store.get(id) !== null);
  store.forgetEnded({ most: 9, ms: 1000 });
  assert.deepEqual(left(), ["waits", "first", "second", "third"]);
  store.forgetEnded({ most: 2, ms: 1000 });
  assert.deepEqual(left(), ["waits", "second", "third"]);
});

Deno.test("uploadKind() takes plain known names and nothing else", () => {
  assert.equal(uploadKind("config.json"), "folder");
  assert.equal(uploadKind("model-00001-of-00002.safetensors"), "folder");
  assert.equal(uploadKind("SmolLM2-135M.Q4_1.gguf"), "gguf");
  assert.equal(uploadKind("model.tar.gz"), "archive");
  assert.equal(uploadKind("story.txt"), "text");
  const bad = [
    "",
    "a/config.json",
    "../x.gguf",
    "..gguf",
    ".gguf",
    "C:\\x.gguf",
    "x.gguf\0",
    "run.sh",
    "a..tar",
    "evil.json",
  ];
  for (const name of bad) assert.throws(() => uploadKind(name), code("unsupported_format"), name);
});

Deno.test("storeStream() hashes what it writes and stops at the limit", () =>
  withFolder(async (path) => {
    async function* chunks() {
      await Promise.resolve();
      yield new TextEncoder().encode("ab");
      yield new TextEncoder().encode("c");
    }
    const stored = await storeStream(chunks(), join(path, "x"), new UploadQuota(3));
    assert.equal(stored.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert.equal(await Deno.readTextFile(join(path, "x")), "abc");
    await assert.rejects(storeStream(chunks(), join(path, "y"), new UploadQuota(2)), code("too_large"));
  }));
