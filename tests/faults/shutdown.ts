/**
 * Ends a server under load at random moments. SIGTERM: every request is answered whole, or hears that the server leaves.
 * `kill -9`: a restart finds everything whole.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Random } from "../../engine/random.ts";
import { ServerProcess } from "../server_process.ts";
import { dataFolderWithModel } from "../testing/data_folder.ts";
import { complete, count, type Outcome } from "./_outcome.ts";
import { type Campaign, type FaultReport, mergeReports } from "./report.ts";

const MODEL = "stories-5m";
const CLIENTS = 6;
/** The latest moment of a blow, counted from the load's begin. */
const LATEST_MS = 600;
/** Its answer is known: greedy, so every server of this model gives it. */
const PROBE = { model: MODEL, prompt: "Once upon a time", max_tokens: 24, temperature: 0 };

export const campaign: Campaign = async ({ seed, full }) => {
  const random = new Random(seed);
  const data = await dataFolderWithModel();
  try {
    const expected = await firstAnswer(data);
    const parts: Partial<FaultReport>[] = [];
    for (let i = 0; i < (full ? 20 : 1); i++) {
      parts.push(await crash(data, { random, expected }));
      for (const patient of [true, false]) parts.push(await terminate(data, { random, patient }));
    }
    return mergeReports(parts);
  } finally {
    await Deno.remove(data, { recursive: true });
  }
};

/** Makes the data folder what later servers find. */
async function firstAnswer(data: string): Promise<string> {
  await using server = await ServerProcess.start(data);
  return await answer(server);
}
async function answer(server: ServerProcess): Promise<string> {
  return (await (await server.post("/v1/completions", PROBE)).json()).choices[0].text;
}

async function crash(
  data: string,
  { random, expected }: { readonly random: Random; readonly expected: string },
): Promise<Partial<FaultReport>> {
  const moment = random.next() * LATEST_MS;
  const server = await ServerProcess.start(data);
  const load = new Load(server.url, random);
  await new Promise((done) => setTimeout(done, moment));
  server.child.kill("SIGKILL");
  await server.child.status;
  await load.stop();
  try {
    await using again = await ServerProcess.start(data);
    const outcome = await complete(again.url, { ...PROBE, stream: true });
    assert.equal(await answer(again), expected);
    assert.equal(await again.stop(), 0);
    checkDatabase(data);
    return { crashes: { tried: 1, survived: 1 }, ...count([outcome]) };
  } catch (error) {
    const failure = `After kill -9 at ${moment.toFixed()} ms: ${error}`;
    return { crashes: { tried: 1, survived: 0 }, failures: [failure] };
  }
}

/** @param options.patient: requests under way have the time they need; else they are ended at once */
async function terminate(
  data: string,
  { random, patient }: { readonly random: Random; readonly patient: boolean },
): Promise<Partial<FaultReport>> {
  const moment = random.next() * LATEST_MS;
  const args = patient ? ["--drain-delay", "0.2"] : ["--drain-timeout", "0"];
  const server = await ServerProcess.start(data, { args });
  const load = new Load(server.url, random);
  await new Promise((done) => setTimeout(done, moment));
  const code = await server.stop();
  const outcomes = (await load.stop()).map((o) => unseen(o, server.log));
  const { requests, failures } = count(outcomes);
  const wrong = [
    ...code === 0 ? [] : [`exit code ${code}`],
    ...failures,
    ...server.log.includes("unexpected error") ? [server.log] : [],
  ];
  return { requests, failures: wrong.map((w) => `After SIGTERM at ${moment.toFixed()} ms: ${w}`) };
}

/**
 * A connection that the system made and the server had not accepted when its port closed is reset, as one that comes later is
 * refused. It is that, when the server says that all it had accepted was answered.
 */
const unseen = (outcome: Outcome, log: string): Outcome =>
  outcome.kind === "lost" && !outcome.began && /"message":"stopped","unanswered":0/.test(log)
    ? { kind: "refused" }
    : outcome;

/** SQLite's own look at every page and index. */
function checkDatabase(data: string): void {
  const database = new DatabaseSync(join(data, "oatmill.db"));
  try {
    assert.deepEqual({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
  } finally {
    database.close();
  }
}

/** Clients that each send the next request when the last is answered: streams and whole answers of random lengths. */
class Load {
  readonly #clients: Promise<Outcome[]>[];
  #stopped = false;

  constructor(url: string, random: Random) {
    this.#clients = Array.from({ length: CLIENTS }, () => this.#client(url, random));
  }
  async #client(url: string, random: Random): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    while (!this.#stopped) {
      const stream = random.next() < 0.5;
      const max_tokens = 1 + Math.floor(random.next() * 200);
      const outcome = await complete(url, { ...PROBE, max_tokens, stream, ignore_eos: true });
      outcomes.push(outcome);
      if (outcome.kind !== "answered") break;
    }
    return outcomes;
  }
  /** @returns what became of every request, once all have ended */
  async stop(): Promise<Outcome[]> {
    this.#stopped = true;
    return (await Promise.all(this.#clients)).flat();
  }
}
