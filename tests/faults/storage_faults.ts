/**
 * Harms the data folder of a real server: a full disk, a read-only one, content that changed, a database and a log that are
 * cut short, a damaged artifact, kills between parts, a clock that jumps. Errors must say what it is, nothing that was
 * acknowledged may be lost, the server must stay alive and recover when the fault is gone.
 */
import { join } from "node:path";
import { BUNDLED_MODEL } from "../../cli/bundled.ts";
import { Random } from "../../engine/random.ts";
import { FakeServer } from "../fake_server.ts";
import { ROOT, ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { Asking, Client, type Json } from "./_asking.ts";
import { SmallDisk } from "./_small_disk.ts";
import { type Campaign, type FaultReport, mergeReports } from "./report.ts";

interface Scene {
  /** A data folder with a model, of which the scene gets a copy. */
  readonly model: string;
  readonly random: Random;
  readonly asking: Asking;
  readonly full: boolean;
}
type Run = (scene: Scene) => Promise<Partial<FaultReport> | void>;

const SCENES: Readonly<Record<string, Run>> = {
  "a full disk": fullDisk,
  "a read-only disk": readOnlyDisk,
  "damaged content": damagedContent,
  "a damaged artifact": damagedArtifact,
  "kills between parts": killsBetweenParts,
  "a log cut short": cutLog,
  "a database cut short": cutDatabase,
  "a clock that jumps": jumpingClock,
};

export const campaign: Campaign = async ({ seed, full }) => {
  const model = await dataFolderWithModel();
  const reports: Partial<FaultReport>[] = [];
  try {
    for (const [name, run] of Object.entries(SCENES)) {
      const asking = new Asking();
      asking.scene = name;
      try {
        reports.push(await run({ model, random: new Random(seed), asking, full }) ?? {});
      } catch (error) {
        asking.expect(false, (error as Error).stack ?? String(error));
      }
      reports.push(asking.report());
    }
  } finally {
    await Deno.remove(model, { recursive: true });
  }
  return mergeReports(reports);
};

const ARGS = ["--no-bundled"];
const PROBE = { model: BUNDLED_MODEL, prompt: "Once upon a time", max_tokens: 8, temperature: 0 };
const bytesOf = (text: string) => new TextEncoder().encode(text);
const noise = (random: Random, size: number) =>
  Uint8Array.from({ length: size }, () => 32 + Math.floor(random.next() * 95));
/** Of a scene that needs the right to mount. */
const leftOut = (name: string) => ({
  notes: [`${name} is left out: this process may not mount a file system`],
});

async function fullDisk({ model, asking, random, full }: Scene): Promise<Partial<FaultReport>> {
  await using disk = await SmallDisk.mount(64 * 2 ** 20);
  if (!disk) return leftOut("a full disk");
  await copyFolder(model, disk.path);
  await using server = await ServerProcess.start(disk.path, { args: [...ARGS, "--no-preload"] });
  const client = new Client(server.url, asking), stored = await storeSome(client, random);
  const job = full ? await jobUnderWay(client, stored.weights) : null;

  await disk.fill();
  for (let i = 0; i < 3; i++) await refusesWrites(client, stored, random);
  if (job) await soon(() => /compression (failed|waits)/.test(server.log)); // it has met the full disk

  await disk.free();
  await takesWrites(client, stored, random);
  if (job) {
    const { status, error } = await ended(client, job);
    const told = status === "succeeded" || error?.code === "storage_failed";
    asking.expect(told, `the job that met the full disk is ${status}: ${error?.message}`);
  }
  asking.expect(await server.stop() === 0, `the server did not stop well: ${server.log}`);
  asking.expect(!server.log.includes("internal_error"), server.log);
  return {};
}

/** A file, a model's files, and an upload that has half of its parts. */
interface Stored {
  readonly content: Uint8Array<ArrayBuffer>;
  readonly kept: Json;
  readonly weights: readonly string[];
  readonly upload: Json;
  readonly part: Json;
}
async function storeSome(client: Client, random: Random): Promise<Stored> {
  const content = noise(random, 100_000);
  const kept = await client.putFile(content), weights = await storeBundled(client);
  const upload = await client.beginUpload(2 * content.length);
  return { content, kept, weights, upload, part: await client.putPart(upload.id, content) };
}
async function refusesWrites(client: Client, stored: Stored, random: Random): Promise<void> {
  const full = { status: 507, code: "storage_failed" };
  const { content, kept, weights, upload, part } = stored, other = noise(random, content.length);
  await client.putFile(other, full);
  await client.putPart(upload.id, other, full);
  await client.beginUpload(2 ** 30, full);
  await submitJob(client, weights, full);
  const part_ids = [part.id], half = { status: 400, code: "invalid_request" };
  await client.post(`/v1/uploads/${upload.id}/complete`, { part_ids }, half);
  await client.serves(kept, content);
  await client.post("/v1/completions", PROBE); // the first loads the model
}
async function takesWrites(client: Client, stored: Stored, random: Random): Promise<void> {
  const { content, weights, upload, part } = stored, other = noise(random, content.length);
  const last = await client.putPart(upload.id, other), part_ids = [part.id, last.id];
  const { file } = await client.post(`/v1/uploads/${upload.id}/complete`, { part_ids });
  await client.serves(file, new Uint8Array([...content, ...other]));
  await client.serves(await client.putFile(other), other);
  const { data } = await client.get("/v1/files");
  client.asking.expect(data.length === 3 + weights.length, `there are ${data.length} files`);
}

async function jobUnderWay(client: Client, files: readonly string[]): Promise<string> {
  const { id } = await submitJob(client, files, { status: 202 });
  await soon(async () => (await client.get(`/v1/compressions/${id}`)).status === "running");
  return id;
}
/** Dense weights, of which nothing is measured: the shortest job there is. */
const submitJob = (client: Client, files: readonly string[], expected: { status: number; code?: string }) =>
  client.post("/v1/compressions", {
    name: "new",
    files,
    recipe: { method: "none", values: "int8", evaluate: { tokens: 64 } },
  }, expected);
async function ended(client: Client, id: string): Promise<Json> {
  let job: Json;
  await soon(async () => {
    job = await client.get(`/v1/compressions/${id}`);
    return ["succeeded", "failed"].includes(job.status);
  });
  return job;
}
/** As until() waits, with the patience that a job of the lowest priority needs where others fill the machine. */
async function soon(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + JOB_MS;
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`Not within ${JOB_MS} ms: ${condition}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}
const JOB_MS = 120_000;
/** @returns the ids of the bundled model's files */
async function storeBundled(client: Client): Promise<string[]> {
  const ids: string[] = [];
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    const bytes = await Deno.readFile(join(ROOT, "models/default", name));
    ids.push((await client.putFile(bytes, { name, purpose: "model" })).id);
  }
  return ids;
}

async function readOnlyDisk({ model, asking, random }: Scene): Promise<Partial<FaultReport>> {
  await using disk = await SmallDisk.mount(64 * 2 ** 20);
  if (!disk) return leftOut("a read-only disk");
  await copyFolder(model, disk.path);
  const content = noise(random, 10_000), other = noise(random, 10_000);
  let kept: Json;
  {
    await using server = await ServerProcess.start(disk.path, { args: ARGS });
    const client = new Client(server.url, asking);
    kept = await client.putFile(content);
    await disk.lock();
    const refused = { status: 507, code: "storage_failed" };
    await client.putFile(other, refused);
    await client.beginUpload(10, refused);
    await client.serves(kept, content);
    await client.post("/v1/completions", PROBE);
    await disk.unlock();
    await client.serves(await client.putFile(other), other);
  }
  await disk.lock();
  await refusesToStart(disk.path, asking, /Cannot .*[Rr]ead-only/);
  await disk.unlock();
  await using server = await ServerProcess.start(disk.path, { args: ARGS });
  await new Client(server.url, asking).serves(kept, content);
  return {};
}

async function damagedContent({ asking, random }: Scene): Promise<void> {
  await using data = await folder();
  await using server = await ServerProcess.start(data.path, { args: ARGS });
  const client = new Client(server.url, asking);
  const [content, other] = [noise(random, 200_000), noise(random, 200_000)];
  const [file, fine] = [await client.putFile(content), await client.putFile(other)];
  const path = join(data.path, "blobs", file.sha256.slice(0, 2), file.sha256);
  for (const harm of [flipByte(random), cutAt(random), (path: string) => Deno.remove(path)]) {
    await harm(path);
    const refused = { status: 500, code: "damaged_file" };
    await client.get(`/v1/files/${file.id}/content`, refused);
    asking.expect((await client.get(`/v1/files/${file.id}`)).status === "error", "the file is not marked");
    await client.serves(fine, other);
    await Deno.writeFile(path, content);
    await client.serves(file, content);
    asking.expect((await client.get(`/v1/files/${file.id}`)).status === "processed", "the file stays marked");
  }
}

async function damagedArtifact({ model, asking, random }: Scene): Promise<void> {
  await using data = await folder(model);
  const [name] = [...Deno.readDirSync(join(data.path, "models"))].map((e) => e.name);
  const path = join(data.path, "models", name, "model.safetensors");
  const whole = await Deno.readFile(path);
  await flipByte(random)(path);
  await using server = await ServerProcess.start(data.path, { args: ARGS });
  const client = new Client(server.url, asking), content = noise(random, 1000);
  await client.post("/v1/completions", PROBE, { status: 500, code: "invalid_artifact" });
  await client.serves(await client.putFile(content), content);
  await Deno.writeFile(path, whole);
  await client.post("/v1/completions", PROBE);
}

/** A client sends parts in parallel while the server is killed, and goes on with what the next one says it has. */
async function killsBetweenParts({ asking, random, full }: Scene): Promise<Partial<FaultReport>> {
  const tried = full ? 10 : 1;
  let survived = 0;
  await using data = await folder();
  for (let i = 0; i < tried; i++) {
    const parts = Array.from(
      { length: 6 },
      () => noise(random, 50_000 + Math.floor(random.next() * 100_000)),
    );
    const total = parts.reduce((sum, p) => sum + p.length, 0);
    const server = await ServerProcess.start(data.path, { args: ARGS });
    const { id } = await new Client(server.url, asking).beginUpload(total);
    const acknowledged = await sendAndKill(server, { id, parts, momentMs: random.next() * 60 });
    await using again = await ServerProcess.start(data.path, { args: ARGS });
    const client = new Client(again.url, asking);
    const stored = new Set<string>((await client.get(`/v1/uploads/${id}`)).parts.map((p: Json) => p.id));
    const lost = acknowledged.filter((part) => part !== undefined && !stored.has(part));
    asking.expect(lost.length === 0, `${lost.length} parts are lost that were acknowledged`);
    const part_ids: string[] = [];
    for (const [i, part] of parts.entries()) {
      part_ids.push(acknowledged[i] ?? (await client.putPart(id, part)).id);
    }
    const { file } = await client.post(`/v1/uploads/${id}/complete`, { part_ids });
    await client.serves(file, new Uint8Array(await new Blob(parts).arrayBuffer()));
    survived++;
  }
  return { crashes: { tried, survived } };
}
/** @returns the ids of the parts whose answers came */
async function sendAndKill(
  server: ServerProcess,
  { id, parts, momentMs }: {
    readonly id: string;
    readonly parts: readonly Uint8Array<ArrayBuffer>[];
    readonly momentMs: number;
  },
): Promise<(string | undefined)[]> {
  const answers = parts.map(async (part) => {
    const body = new FormData();
    body.append("data", new Blob([part]), "part");
    try {
      const response = await server.get(`/v1/uploads/${id}/parts`, { method: "POST", body });
      return (await response.json()).id as string;
    } catch {
      return undefined; // the kill
    }
  });
  await new Promise((done) => setTimeout(done, momentMs));
  server.child.kill("SIGKILL");
  await server.child.status;
  return await Promise.all(answers);
}

/** SQLite keeps what the log has up to the cut; what was acknowledged stands in the database itself. */
async function cutLog({ asking, random, full }: Scene): Promise<Partial<FaultReport>> {
  const tried = full ? 5 : 1;
  let survived = 0;
  await using data = await folder();
  const known: { readonly file: Json; readonly content: Uint8Array<ArrayBuffer> }[] = [];
  for (let i = 0; i < tried; i++) {
    const server = await ServerProcess.start(data.path, { args: ARGS });
    const client = new Client(server.url, asking);
    const content = noise(random, 1000);
    known.push({ file: await client.putFile(content), content });
    server.child.kill("SIGKILL");
    await server.child.status;
    await cutAt(random)(join(data.path, "oatmill.db-wal"));
    await using again = await ServerProcess.start(data.path, { args: ARGS });
    for (const { file, content } of known) await new Client(again.url, asking).serves(file, content);
    survived++;
  }
  return { crashes: { tried, survived } };
}

const SQLITE_HEADER_BYTES = 100;

async function cutDatabase({ asking, random, full }: Scene): Promise<void> {
  await using data = await folder();
  const content = noise(random, 1000), path = join(data.path, "oatmill.db");
  let file: Json;
  {
    await using server = await ServerProcess.start(data.path, { args: ARGS });
    file = await new Client(server.url, asking).putFile(content);
  }
  const whole = await Deno.readFile(path);
  const damaged = /Cannot open the database .*(malformed|not a database)/;
  const gone = /the database of what is in it is gone/;
  const harms: readonly (readonly [RegExp, () => Promise<void>])[] = [
    [damaged, () => Deno.writeFile(path, whole.slice(0, whole.length / 2))],
    [gone, () => Deno.truncate(path, 0)],
    [damaged, () => Deno.writeFile(path, bytesOf("no database at all ".repeat(99)))],
    [damaged, () => Deno.writeFile(path, whole.slice(0, SQLITE_HEADER_BYTES))],
    [gone, () => Deno.remove(path)],
  ];
  for (const [why, harm] of full ? harms : harms.slice(0, 2)) {
    await harm();
    await refusesToStart(data.path, asking, why);
  }
  await Deno.writeFile(path, whole);
  await using server = await ServerProcess.start(data.path, { args: ARGS });
  await new Client(server.url, asking).serves(file, content);
}

/** In this process: what the server asks of the wall clock here is `Date.now()`. */
async function jumpingClock({ asking, random }: Scene): Promise<void> {
  const now = Date.now, dayMs = 24 * 3600_000;
  await using server = await FakeServer.start();
  const client = new Client(server.url, asking), content = noise(random, 1000);
  try {
    const files: Json[] = [];
    const upload = await client.beginUpload(2 * content.length);
    const first = await client.putPart(upload.id, content);
    for (const jumpMs of [0, 400 * dayMs, -400 * dayMs, 1000]) {
      Date.now = () => now() + jumpMs;
      files.push(await client.putFile(noise(random, 100)));
      asking.expect(
        (await client.get(`/v1/uploads/${upload.id}`)).status === "pending",
        "an upload has ended",
      );
      await client.post("/v1/completions", { model: "fake", prompt: "a", max_tokens: 2 });
      await client.get("/healthz");
    }
    const listed = (await client.get("/v1/files?order=asc")).data.map((f: Json) => f.id);
    asking.expect(String(listed) === String(files.map((f) => f.id)), "the order of files follows the clock");
    const other = noise(random, content.length);
    const last = await client.putPart(upload.id, other);
    const { file } = await client.post(`/v1/uploads/${upload.id}/complete`, {
      part_ids: [first.id, last.id],
    });
    await client.serves(file, new Uint8Array([...content, ...other]));
  } finally {
    Date.now = now;
  }
}

/** It ends with exit code 1, says why, and has deleted nothing. */
async function refusesToStart(data: string, asking: Asking, why: RegExp): Promise<void> {
  const before = tree(data);
  try {
    await using _server = await ServerProcess.start(data, { args: ARGS });
    asking.expect(false, "the server starts");
  } catch (error) {
    asking.expect(why.test(String(error)), `the server says ${error}`);
  }
  const gone = before.filter((path) => !tree(data).includes(path));
  asking.expect(gone.length === 0, `${gone.join(", ")} went with a start that failed`);
}
function tree(path: string): string[] {
  return [...Deno.readDirSync(path)].filter(({ name }) => name !== "tmp").flatMap(({ name, isDirectory }) =>
    isDirectory ? tree(join(path, name)) : /-(wal|shm)$/.test(name) ? [] : [join(path, name)]
  );
}

const flipByte = (random: Random) => async (path: string): Promise<void> => {
  const bytes = await Deno.readFile(path);
  bytes[Math.floor(random.next() * bytes.length)] ^= 1;
  await Deno.writeFile(path, bytes);
};
const cutAt = (random: Random) => async (path: string): Promise<void> => {
  const { size } = await Deno.stat(path);
  await Deno.truncate(path, Math.floor(random.next() * size));
};

async function folder(copyOf?: string): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir();
  if (copyOf !== undefined) await copyFolder(copyOf, path);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
async function copyFolder(from: string, to: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    const target = join(to, name);
    if (!isDirectory) await Deno.copyFile(join(from, name), target);
    else {
      await Deno.mkdir(target, { recursive: true });
      await copyFolder(join(from, name), target);
    }
  }
}
