/**
 * A model changes its version over and over while clients ask for it; versions, and then the whole model, are deleted in
 * between with drain; `kill -9` comes in the middle of a change. No request may be lost, and a restart must find the name
 * at a version that it had, every version whole, and no files beside them.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Random } from "../../engine/random.ts";
import { ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { complete, count, type Outcome } from "./_outcome.ts";
import { type Campaign, type FaultReport, mergeReports } from "./report.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;
const MODEL = "stories-5m";
const CLIENTS = 4;
const SWAPS = 8;
/** The latest moment of a kill, counted from the change that it meets: loading and switching take about so long. */
const LATEST_MS = 60;
/** Their places in the model's list of versions as the data folder is made. */
const VERSIONS = ["f32", "int4", "int8"] as const;

export const campaign: Campaign = async ({ seed, full }) => {
  const random = new Random(seed);
  const origin = await dataFolderWithModel(VERSIONS);
  try {
    const parts: Partial<FaultReport>[] = [];
    for (let i = 0; i < (full ? 10 : 1); i++) {
      for (const change of ["swap", "delete"] as const) parts.push(await round(origin, { random, change }));
    }
    return mergeReports(parts);
  } finally {
    await Deno.remove(origin, { recursive: true });
  }
};

/** @param options.change what the kill meets */
async function round(
  origin: string,
  { random, change }: { readonly random: Random; readonly change: "swap" | "delete" },
): Promise<Partial<FaultReport>> {
  const data = await Deno.makeTempDir();
  try {
    await new Deno.Command("cp", { args: ["-a", `${origin}/.`, data] }).output();
    const first = new Trial(await ServerProcess.start(data, { args: ["--no-bundled"] }), random);
    const { outcomes, state } = await first.changeUntilKilled(change);
    const found = await restart(data, state).catch((error) => ({ failures: [`After kill -9: ${error}`] }));
    const survived = found.failures.length === 0 ? 1 : 0;
    return mergeReports([count(outcomes), found, { crashes: { tried: 1, survived } }]);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
}

/** What a restarted server may find. */
interface Expected {
  /** The name points at one of these. */
  readonly current: readonly string[];
  readonly kept: readonly string[];
  /** May be there or not. */
  readonly leaving: readonly string[];
}

/** Clients and changes of one server. */
class Trial {
  readonly #clients: Promise<void>[] = [];
  readonly #outcomes: Outcome[] = [];
  #stopped = false;
  #killed = false;
  constructor(readonly server: ServerProcess, readonly random: Random) {}

  async changeUntilKilled(
    change: "swap" | "delete",
  ): Promise<{ readonly outcomes: Outcome[]; readonly state: Expected }> {
    const [a, b, pinned] = await versionsOf(this.server);
    let current = a;
    for (let i = 0; i < CLIENTS; i++) this.#clients.push(this.#ask(MODEL));
    this.#clients.push(this.#ask(`${MODEL}@${pinned}`));
    for (let i = 0; i < SWAPS; i++) {
      current = current === a ? b : a;
      await this.#pause();
      assert.equal((await point(this.server, current)).version, current);
    }
    const next = current === a ? b : a;
    const under = change === "swap" ? point(this.server, next) : remove(this.server, `${MODEL}@${pinned}`);
    under.catch(() => {}); // nobody hears its answer
    await new Promise((done) => setTimeout(done, this.random.next() * LATEST_MS));
    this.#killed = true; // what is under way nobody can answer
    this.server.child.kill("SIGKILL");
    await this.server.child.status;
    await this.stop();
    const state = change === "swap"
      ? { current: [current, next], kept: [a, b, pinned], leaving: [] }
      : { current: [current], kept: [a, b], leaving: [pinned] };
    return { outcomes: this.#outcomes, state };
  }
  /** Deletes the model with its requests under way. @returns what became of these */
  async deleteAll(): Promise<Outcome[]> {
    for (let i = 0; i < CLIENTS; i++) this.#clients.push(this.#ask(MODEL));
    await this.#pause();
    assert.equal((await remove(this.server, MODEL)).deleted, true);
    await this.stop();
    return this.#outcomes;
  }
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
  }

  /** Asks again as soon as it has its answer, until the model is gone. */
  async #ask(model: string): Promise<void> {
    while (!this.#stopped) {
      const stream = this.random.next() < 0.5;
      const max_tokens = 1 + Math.floor(this.random.next() * 60);
      const body = { model, prompt: "Once upon a time", max_tokens, stream, ignore_eos: true };
      const outcome = await complete(this.server.url, body);
      if (this.#killed) return;
      const gone = outcome.kind === "lost" && /404.*being deleted|404.*does not exist/.test(outcome.why);
      this.#outcomes.push(gone ? { kind: "refused" } : outcome);
      if (outcome.kind !== "answered") return;
    }
  }
  #pause(): Promise<void> {
    return new Promise((done) => setTimeout(done, this.random.next() * 100));
  }
}

/** Looks at what a killed server left, then deletes it all under load. */
async function restart(data: string, expected: Expected): Promise<FaultReport> {
  await using server = await ServerProcess.start(data, { args: ["--no-bundled"] });
  const versions = await versionsOf(server);
  assert.ok(expected.current.includes(versions[0]), `the name points at ${versions[0]}`);
  for (const version of expected.kept) assert.ok(versions.includes(version), `${version} is gone`);
  const known = [...expected.kept, ...expected.leaving];
  for (const version of versions) assert.ok(known.includes(version), `${version} is nobody's`);
  assert.equal(foldersOf(data), versions.length);
  for (const version of versions) {
    const body = { model: `${MODEL}@${version}`, prompt: "The dog", max_tokens: 4 };
    const answer: Json = await (await server.post("/v1/completions", body)).json();
    assert.equal(answer.system_fingerprint, version.slice(0, 12), JSON.stringify(answer));
  }
  const outcomes = await new Trial(server, new Random(1)).deleteAll();
  assert.equal(foldersOf(data), 0);
  return mergeReports([count(outcomes)]);
}

const foldersOf = (data: string): number => [...Deno.readDirSync(join(data, "models"))].length;

async function versionsOf(server: ServerProcess): Promise<string[]> {
  const model: Json = await (await server.get(`/v1/models/${MODEL}`)).json();
  return model.versions.map((v: Json) => v.version);
}
async function point(server: ServerProcess, version: string): Promise<Json> {
  return await (await server.post(`/v1/models/${MODEL}`, { version })).json();
}
async function remove(server: ServerProcess, id: string): Promise<Json> {
  return await (await server.get(`/v1/models/${id}?drain=true`, { method: "DELETE" })).json();
}
