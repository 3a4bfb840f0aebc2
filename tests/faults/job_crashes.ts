/**
 * `kill -9` at random moments of compressions: after each restart the job goes on by itself, and in the end its artifact is
 * that of a job that nobody disturbed, file by file.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Random } from "../../engine/random.ts";
import type { RecipeInput } from "../../models/recipe.ts";
import { ROOT, ServerProcess } from "../server_process.ts";
import { until } from "../until.ts";
import { type Campaign, type FaultReport, mergeReports } from "./report.ts";

const SOURCE = join(ROOT, "models/default");
const TEXT = "Once upon a time there was a little girl named Lily. She liked to play. ".repeat(120);
const CALIBRATION = { text: "story.txt", sequences: 4, length: 32 };
const SMALL = {
  rate: 0.4,
  iterations: 2,
  reselect: 1,
  evaluate: { tokens: 64 },
} as const satisfies RecipeInput;

const RECIPES: Readonly<Record<string, RecipeInput>> = {
  measured: { ...SMALL, calibration: CALIBRATION },
  sequential: {
    ...SMALL,
    method: "oats",
    allocation: "owl",
    calibration: { ...CALIBRATION, statistics: "sequential" },
  },
  feedback: {
    method: "none",
    values: "int4",
    rounding: "feedback",
    calibration: CALIBRATION,
    evaluate: { tokens: 64 },
  },
  self: { ...SMALL, calibration: { sequences: 3, length: 32 } },
};
/** Of each recipe. */
const KILLS = { full: 6, quick: 2 };
const QUICK_RECIPES = ["measured", "sequential"];
/** Where other tests fill the machine, a job of the lowest priority takes minutes. */
const PATIENCE_MS = 600_000;

export const campaign: Campaign = async ({ seed, full }) => {
  const random = new Random(seed), parts: Partial<FaultReport>[] = [];
  for (const name of full ? Object.keys(RECIPES) : QUICK_RECIPES) {
    const data = await Deno.makeTempDir();
    try {
      const kills = full ? KILLS.full : KILLS.quick;
      parts.push(...await new Crashes(data, RECIPES[name], random).run(name, kills));
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  }
  return mergeReports(parts);
};

/** Crashes of servers over one data folder while they make one model after the other. */
class Crashes {
  #submitted = 0;

  constructor(readonly data: string, readonly recipe: RecipeInput, readonly random: Random) {}

  async run(name: string, kills: number): Promise<Partial<FaultReport>[]> {
    const start = performance.now(), whole = await this.#undisturbed();
    const meanMs = (performance.now() - start) / kills;
    const parts: Partial<FaultReport>[] = [];
    for (let left = kills; left > 0;) {
      const { moments, failure } = await this.#disturbed({ most: left, meanMs, whole });
      left -= Math.max(1, moments.length);
      const tried = moments.length, at = moments.map((ms) => `${ms} ms`).join(", ");
      parts.push({
        crashes: { tried, survived: failure ? 0 : tried },
        failures: failure ? [`${name}, killed at ${at}: ${failure}`] : [],
      });
    }
    return parts;
  }

  /** @returns hashes of the artifact's files */
  async #undisturbed(): Promise<string> {
    await using server = await this.#start();
    const id = await this.#submit(server);
    await this.#end(id);
    return await hashes(join(this.data, "models", id));
  }

  /** One job, with servers that are killed under it until it is done or `most` are. */
  async #disturbed(
    { most, meanMs, whole }: { readonly most: number; readonly meanMs: number; readonly whole: string },
  ): Promise<{ readonly moments: readonly number[]; readonly failure: string | null }> {
    const moments: number[] = [];
    let server = await this.#start();
    try {
      const id = await this.#submit(server);
      while (moments.length < most) {
        const ms = Math.round(2 * meanMs * this.random.next());
        await this.#letLive(id);
        await new Promise((done) => setTimeout(done, ms));
        if (this.#state(id) === "succeeded") break;
        server.child.kill("SIGKILL");
        await server.child.status;
        moments.push(ms);
        server = await this.#start();
      }
      await this.#end(id);
      assert.equal(await hashes(join(this.data, "models", id)), whole);
      await this.#checkLeft(id);
      return { moments, failure: null };
    } catch (error) {
      return { moments, failure: `${error}\n${server.log.slice(-2000)}` };
    } finally {
      await server[Symbol.asyncDispose]();
    }
  }

  #start(): Promise<ServerProcess> {
    return ServerProcess.start(this.data, { args: ["--no-bundled"] });
  }

  async #submit(server: ServerProcess): Promise<string> {
    const body = new FormData();
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]) {
      body.append("files", new Blob([await Deno.readFile(join(SOURCE, name))]), name);
    }
    if (this.recipe.calibration?.text) body.append("files", new Blob([TEXT]), "story.txt");
    body.append("recipe", JSON.stringify(this.recipe));
    body.append("name", `model-${this.#submitted++}`);
    const response = await server.get("/v1/models", { method: "POST", body });
    assert.equal(response.status, 202, await response.clone().text());
    return (await response.json()).id;
  }

  /** A job that began twice without getting further fails at the next crash but one: by design, and not what is tried here. */
  async #letLive(id: string): Promise<void> {
    await until(() => this.#row(id).tries < 2 || isOver(this.#state(id)), PATIENCE_MS);
  }

  async #end(id: string): Promise<void> {
    await until(() => isOver(this.#state(id)), PATIENCE_MS);
    const { state, error } = this.#row(id);
    assert.equal(state, "succeeded", `${error}`);
  }

  /** Everything unfinished is gone, and events are in order. */
  async #checkLeft(id: string): Promise<void> {
    await until(() => [...Deno.readDirSync(join(this.data, "jobs"))].length === 0);
    using database = new DatabaseSync(join(this.data, "oatmill.db"), { readOnly: true });
    const seqs = database.prepare("SELECT seq FROM job_events WHERE job = ?").all(id).map(({ seq }) => seq);
    assert.deepEqual(seqs, seqs.toSorted((a, b) => Number(a) - Number(b)));
  }

  #state(id: string): string {
    return this.#row(id).state;
  }

  #row(id: string): { readonly state: string; readonly tries: number; readonly error: string | null } {
    using database = new DatabaseSync(join(this.data, "oatmill.db"), { readOnly: true, timeout: 5000 });
    // deno-lint-ignore no-explicit-any -- node:sqlite's rows
    return database.prepare("SELECT state, tries, error FROM jobs WHERE id = ?").get(id) as any;
  }
}

const isOver = (state: string): boolean => ["succeeded", "failed", "cancelled"].includes(state);

/** Of all files but the stamps of this disk; without name and time in the header. */
async function hashes(artifact: string): Promise<string> {
  const found: string[] = [];
  for await (const { name } of Deno.readDir(artifact)) {
    if (name.endsWith(".verified")) continue;
    const bytes = await Deno.readFile(join(artifact, name));
    const same = name === "oatmill.json" ? withoutTime(new TextDecoder().decode(bytes)) : bytes;
    found.push(`${name} ${createHash("sha256").update(same).digest("hex")}`);
  }
  return found.sort().join("\n");
}

function withoutTime(header: string): string {
  const { created: _created, name: _name, ...rest } = JSON.parse(header);
  return JSON.stringify(rest);
}
