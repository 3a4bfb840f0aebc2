/** New versions of a model take its name on the real server, under the load of a client that forgives nothing. */
import assert from "node:assert/strict";
import { describe, it } from "@std/testing/bdd";
import OpenAI from "openai";
import { artifactVersion } from "../models/formats/artifact_version.ts";
import { uploadModel, useServer } from "./server_suite.ts";
import { bundledFiles } from "./testing/bundled_files.ts";
import { until } from "./until.ts";

const MODEL = "stories";
/** Different weights each, of compressions that take a second of a core that has nothing better to do. */
const RECIPES = ["int8", "int4", "f32"].map((values) => ({
  method: "none",
  values,
  evaluate: { tokens: 64 },
}));
/** Between two requests of a client, so that a machine with one core has time for jobs too. */
const PAUSE_MS = 20;

/** Two clients that stream and one that waits for whole answers. */
class Load {
  /** Fingerprints of every answer, one each. */
  readonly answers: string[] = [];
  /** What failed; of a client that met it, nothing more comes. */
  readonly errors: unknown[] = [];
  readonly #clients: Promise<void>[];
  #stopped = false;

  constructor(url: string) {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    this.#clients = [true, true, false].map((stream) =>
      this.#ask(client, stream).catch((error) => void this.errors.push(error))
    );
  }
  async #ask(client: OpenAI, stream: boolean): Promise<void> {
    const body = { model: MODEL, prompt: "Once upon a time", max_tokens: 32, temperature: 0.8 };
    while (!this.#stopped) {
      await new Promise((done) => setTimeout(done, PAUSE_MS));
      if (stream) this.answers.push(await this.#readStream(client, body));
      else {
        const answer = await client.completions.create(body);
        assert.ok(answer.choices[0].finish_reason);
        this.answers.push(answer.system_fingerprint!);
      }
    }
  }
  async #readStream(client: OpenAI, body: OpenAI.CompletionCreateParamsNonStreaming): Promise<string> {
    const seen = new Set<string | undefined>();
    let reason: string | null = null;
    for await (const chunk of await client.completions.create({ ...body, stream: true })) {
      seen.add(chunk.system_fingerprint);
      reason = chunk.choices[0].finish_reason;
    }
    assert.ok(reason, "the stream comes to its end");
    assert.equal(seen.size, 1, "one version writes a whole answer");
    return [...seen][0]!;
  }
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
  }
}

describe("a server whose model gets new versions under load", () => {
  const server = useServer(["--threads", "1"]); // the other core is for the jobs, whose priority is the lowest
  const metric = async (name: string) =>
    Number(
      new RegExp(`^${name}(?:{.*})? (\\d+)$`, "m").exec(await (await server().get("/metrics")).text())?.[1],
    );

  it("answers every request, each from one version, and closes the engines it no longer needs", async () => {
    const files = await bundledFiles();
    const compress = async (recipe: object): Promise<string> => {
      const job = await uploadModel(server(), files, { name: MODEL, recipe });
      assert.deepEqual([job.status, job.error], ["succeeded", null]);
      return job.result.version.slice(0, 12);
    };
    const versions = [await compress(RECIPES[0])];
    const load = new Load(server().url);
    try {
      for (const recipe of RECIPES.slice(1)) {
        await until(() => load.answers.length > 4);
        const version = await compress(recipe), before = load.answers.length;
        assert.ok(!versions.includes(version));
        versions.push(version);
        await until(() => load.answers.length > before + 8); // those under way at the switch, and new ones
        assert.deepEqual(new Set(load.answers.slice(-4)), new Set([version]));
        await until(async () => await metric("oatmill_model_loaded") === 1);
      }
    } finally {
      await load.stop();
    }
    assert.deepEqual(load.errors, []);
    assert.deepEqual([...new Set(load.answers)].sort(), versions.toSorted());
    assert.equal(await metric("oatmill_model_switches_total"), 2);
    assert.match(server().log, /"model unloaded".*"reason":"replaced"/);
  });

  it("answers from each version that it keeps, and goes back to one", async () => {
    const client = new OpenAI({ baseURL: `${server().url}/v1`, apiKey: "none", maxRetries: 0 });
    const ask = async (model: string) =>
      await client.completions.create({ model, prompt: "The dog", max_tokens: 8, temperature: 0 });
    const { versions } = await client.models.retrieve(MODEL) as unknown as {
      versions: { version: string }[];
    };
    assert.equal(versions.length, 3);
    for (const { version } of versions) {
      const model = `${MODEL}@${version.slice(0, 8)}`, answer = await ask(model);
      assert.deepEqual([answer.model, answer.system_fingerprint], [model, version.slice(0, 12)]);
      const header = await (await server().get(`/v1/models/${model}/files/oatmill.json`)).json();
      assert.equal(artifactVersion(header), version, "the file on disk says the same as the job");
    }
    await client.post(`/models/${MODEL}`, { body: { version: versions[2].version } });
    assert.equal((await ask(MODEL)).system_fingerprint, versions[2].version.slice(0, 12));
    assert.equal((await client.models.delete(`${MODEL}@${versions[0].version}`)).deleted, true);
    assert.equal((await client.models.delete(MODEL)).deleted, true);
    await assert.rejects(ask(MODEL), OpenAI.NotFoundError);
  });
});
