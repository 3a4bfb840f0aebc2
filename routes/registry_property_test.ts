import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { LoadTimes } from "../engine/load_times.ts";
import type { OpenedModel } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import { AdapterStore } from "../store/adapter_store.ts";
import { DataFolder } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { ModelStore } from "../store/model_store.ts";
import { setLogSink } from "../telemetry/log.ts";
import { Telemetry } from "../telemetry/telemetry.ts";
import { byteTokenizer, FakeEngine } from "../tests/fake_engine.ts";
import { fakeHeader } from "../tests/fake_server.ts";
import { until } from "../tests/until.ts";
import type { Lease } from "./engine_pool.ts";
import { ModelRegistry } from "./registry.ts";

const KEEP = 2;
/** Of weights that an engine does not open. */
const DAMAGED = "damaged";

type Step =
  | { readonly do: "add"; readonly name: string; readonly weights: string }
  | { readonly do: "acquire"; readonly name: string; readonly version: number | null }
  | { readonly do: "release"; readonly lease: number }
  | { readonly do: "point"; readonly name: string; readonly version: number }
  | {
    readonly do: "remove";
    readonly name: string;
    readonly version: number | null;
    readonly drain: boolean;
  };
/** `wait`: the next step comes when this one has ended; else while it is under way. */
type Scheduled = Step & { readonly wait: boolean };

const name = fc.constantFrom("a", "b"), index = fc.nat(5), wait = fc.boolean();
const of = <T extends Step["do"]>(what: T) => ({ do: fc.constant(what), wait });
const step: fc.Arbitrary<Scheduled> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ ...of("add"), name, weights: fc.constantFrom("1", "2", "3", "4", DAMAGED) }),
  },
  { weight: 6, arbitrary: fc.record({ ...of("acquire"), name, version: fc.option(index, { freq: 2 }) }) },
  { weight: 6, arbitrary: fc.record({ ...of("release"), lease: index }) },
  { weight: 2, arbitrary: fc.record({ ...of("point"), name, version: index }) },
  {
    weight: 1,
    arbitrary: fc.record({
      ...of("remove"),
      name,
      version: fc.option(index, { freq: 1 }),
      drain: fc.boolean(),
    }),
  },
);

/** A registry over real folders, whose leases are looked at after every step. */
class Trial {
  readonly leases: Lease[] = [];
  readonly pending = new Set<Promise<unknown>>();
  /** Deletions that wait for leases: what comes after them for their name waits too. */
  #draining = 0;
  constructor(
    readonly registry: ModelRegistry,
    readonly data: DataFolder,
    readonly models: ModelStore,
  ) {}

  async take(step: Scheduled): Promise<void> {
    const work = this.#start(step);
    this.pending.add(work);
    work.finally(() => this.pending.delete(work)).catch(() => {});
    if (step.do === "remove" && step.drain) {
      this.#draining++;
      work.finally(() => this.#draining--);
    }
    if (step.wait && this.#draining === 0) await work;
    else await new Promise((done) => setTimeout(done)); // some of the way
    this.check();
  }
  #start(step: Step): Promise<unknown> {
    const { registry, leases } = this;
    const id = (name: string, version: number | null) => {
      const versions = registry.versions(name);
      return version === null || versions.length === 0
        ? name
        : `${name}@${versions[version % versions.length].version}`;
    };
    switch (step.do) {
      case "add":
        return this.#add(step.name, step.weights);
      case "acquire":
        return tolerant(registry.acquire(id(step.name, step.version)).then((lease) => leases.push(lease)));
      case "release":
        leases.splice(step.lease % Math.max(1, leases.length), 1)[0]?.[Symbol.dispose]();
        return Promise.resolve();
      case "point":
        return tolerant(
          registry.point(step.name, id(step.name, step.version).split("@")[1] ?? "0".repeat(8)),
        );
      case "remove":
        return tolerant(
          registry.remove(id(step.name, step.version), step.drain ? { drainMs: 60_000 } : {}),
        );
    }
  }
  async #add(name: string, weights: string): Promise<void> {
    const folder = await this.data.temporary();
    await Deno.writeTextFile(join(folder, "model.safetensors"), weights);
    await tolerant(this.registry.add(name, folder, fakeHeader(name, weights)));
  }
  check(): void {
    for (const { id, version, model, closed } of this.leases) {
      assert.equal(closed, null);
      assert.equal((model.engine as FakeEngine).closed, false, "nobody's engine is closed");
      const row = this.models.versions(id).find((v) => v.version === version);
      assert.ok(row, "nobody's version is removed");
      assert.ok(Deno.statSync(join(this.data.modelPath(row.folder), "model.safetensors")).isFile);
    }
  }
  async end(): Promise<void> {
    await until(() => {
      for (const lease of this.leases.splice(0)) lease[Symbol.dispose]();
      return this.pending.size === 0;
    });
    const folders = () => [...Deno.readDirSync(join(this.data.root, "models"))].map((e) => e.name).sort();
    const rows = () => this.models.all().map((v) => v.folder).sort();
    await until(() => folders().join() === rows().join());
    for (const name of ["a", "b"]) {
      const versions = this.registry.versions(name);
      assert.ok(versions.length <= KEEP, `${versions.length} versions are kept`);
      if (versions.length > 0) assert.equal(this.registry.get(name).version, versions[0].version);
    }
    const loaded = this.registry.stats();
    assert.equal(new Set(loaded.map((l) => `${l.id}@${l.version}`)).size, loaded.length);
  }
}

/** What a caller may meet. */
const EXPECTED = ["model_not_found", "conflict", "invalid_artifact"];
async function tolerant(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof OatmillError && EXPECTED.includes(error.code))) throw error;
  }
}

async function open(path: string): Promise<OpenedModel> {
  const weights = await Deno.readTextFile(join(path, "model.safetensors"));
  await new Promise((done) => setTimeout(done));
  if (weights === DAMAGED) throw new OatmillError("invalid_artifact", "The SHA-256 differs");
  const engine = new FakeEngine(), { spec } = fakeHeader("x");
  return {
    name: "x",
    spec,
    engine,
    tokenizer: byteTokenizer,
    encoder: null,
    header: null,
    times: new LoadTimes(),
  };
}

Deno.test("whatever comes in whatever order, leases keep their engine and files, and no version too many stays", async () => {
  const telemetry = await Telemetry.open({ version: "test", otlp: null });
  const formerSink = setLogSink(() => {});
  const run = async (steps: readonly Scheduled[], maxLoaded: number): Promise<void> => {
    const root = await Deno.makeTempDir();
    try {
      using data = await DataFolder.open(root);
      using database = openDatabase(":memory:");
      const models = new ModelStore(database), adapters = new AdapterStore(database);
      const options = { data, models, adapters, open, maxLoaded, idleMs: 0, keepVersions: KEEP, telemetry };
      const registry = new ModelRegistry(options);
      const trial = new Trial(registry, data, models);
      for (const step of steps) await trial.take(step);
      await trial.end();
      await registry.close();
      assert.deepEqual(registry.stats(), []);
    } finally {
      await Deno.remove(root, { recursive: true });
    }
  };
  try {
    const steps = fc.array(step, { minLength: 5, maxLength: 40 });
    await fc.assert(fc.asyncProperty(steps, fc.integer({ min: 1, max: 3 }), run), { numRuns: 100 });
  } finally {
    setLogSink(formerSink);
    await telemetry.close();
  }
});
