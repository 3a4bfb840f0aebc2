/** A run that ends anywhere and is begun again makes what an undisturbed one makes. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import type { RecipeInput } from "../../models/recipe.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { writeSyntheticCheckpoint } from "../../bench/synthetic_checkpoint.ts";
import { compress } from "../pipeline.ts";
import { seededRandom } from "../random.ts";
import type { CompressOptions, CompressProgress, FoundWork } from "../types.ts";

/** A small model of random weights: what is tried is the order of steps. */
const BLOCKS = 4;
const QUICK: RecipeInput = { iterations: 1, reselect: 1, evaluate: { tokens: 64 } };
const RECIPES = {
  "measured losses, a text": { ...QUICK, calibration: { sequences: 3, length: 32, text: "text.jsonl" } },
  "measured losses, sequential, self text": {
    ...QUICK,
    calibration: { sequences: 2, length: 32, statistics: "sequential" },
  },
  "OWL's rates, sequential": {
    ...QUICK,
    method: "oats",
    allocation: "owl",
    calibration: { sequences: 3, length: 32, text: "text.jsonl", statistics: "sequential" },
  },
  "int4 with feedback": {
    method: "none",
    rate: 0,
    values: "int4",
    rounding: "feedback",
    calibration: { sequences: 3, length: 32, text: "text.jsonl" },
    evaluate: { tokens: 64 },
  },
  "structured": {
    method: "structured",
    rate: 0.25,
    values: "int8",
    calibration: { sequences: 3, length: 32, text: "text.jsonl" },
    evaluate: { tokens: 64 },
  },
} as const satisfies Record<string, RecipeInput>;
type RecipeName = keyof typeof RECIPES;

class Stopped extends Error {}

/** A folder with a text, and runs of a recipe in it. */
class Lab implements AsyncDisposable {
  private constructor(readonly dir: string) {}

  static async make(): Promise<Lab> {
    const dir = await Deno.makeTempDir(), lab = new Lab(dir);
    await Deno.mkdir(lab.source);
    await writeSyntheticCheckpoint(lab.source, { ...SYNTHETIC_SPECS.tiny, blocks: BLOCKS });
    await lab.writeText(1);
    return lab;
  }

  get source(): string {
    return join(this.dir, "source");
  }

  /** Random token ids: the model has no tokenizer. */
  async writeText(seed: number): Promise<void> {
    const random = seededRandom(seed);
    const line = () => JSON.stringify(Array.from({ length: 32 }, () => random.below(256)));
    await Deno.writeTextFile(join(this.dir, "text.jsonl"), Array.from({ length: 8 }, line).join("\n"));
  }

  run(name: RecipeName | RecipeInput, out: string, over: Partial<CompressOptions> = {}) {
    const recipe: RecipeInput = typeof name === "string" ? RECIPES[name] : name;
    const { calibration } = recipe;
    const text = calibration?.text ? join(this.dir, calibration.text) : "self";
    return compress({
      source: this.source,
      out: join(this.dir, out),
      name: "model",
      recipe: { ...recipe, calibration: { ...calibration, text } },
      copyShare: Infinity,
      threads: name === "measured losses, a text" ? 2 : 1, // each costs half a second
      ...over,
    });
  }

  /** Of every file but the stamps of this disk; without the time and the lab's folder in the header. */
  async hashes(out: string): Promise<Record<string, string>> {
    const found: Record<string, string> = {};
    for await (const { name } of Deno.readDir(join(this.dir, out))) {
      if (name.endsWith(".verified")) continue;
      const bytes = await Deno.readFile(join(this.dir, out, name));
      const same = name === "oatmill.json"
        ? new TextDecoder().decode(bytes).replace(/"created": ".*"/, "").replaceAll(this.dir, "")
        : bytes;
      found[name] = createHash("sha256").update(same).digest("hex");
    }
    return found;
  }

  get left(): string[] {
    return [...Deno.readDirSync(this.dir)].map(({ name }) => name).sort();
  }

  /** Of what nobody stopped, made in a lab of its own once for all tests: the source and the text are always the same. */
  static whole(name: RecipeName): Promise<Record<string, string>> {
    return Lab.#whole[name] ??= (async () => {
      await using lab = await Lab.make();
      await lab.run(name, "whole");
      return await lab.hashes("whole");
    })();
  }
  static readonly #whole: Partial<Record<RecipeName, Promise<Record<string, string>>>> = {};

  /** Runs until `count` units more are kept; what is half written stays, as after a crash. */
  async stopBehind(name: RecipeName, count: number, work: string): Promise<string | null> {
    let left = count;
    const onKept = (unit: string) => {
      if (--left === 0) throw new Stopped(unit);
    };
    try {
      await this.run(name, `${work}.out`, { work: join(this.dir, work), onKept });
      return null;
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
      return error.message;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }
}

/** Units between two stops: the fewest where there are most kinds of units. */
const STRIDES: Readonly<Record<RecipeName, number>> = {
  "measured losses, a text": 1,
  "measured losses, sequential, self text": 4,
  "OWL's rates, sequential": 3,
  "int4 with feedback": 3,
  "structured": 3,
};

for (const [name, stride] of Object.entries(STRIDES) as [RecipeName, number][]) {
  Deno.test(`compress() goes on behind its units, bit by bit: ${name}`, async () => {
    await using lab = await Lab.make();
    const units: string[] = [];
    const next = () => lab.stopBehind(name, units.at(-1) === "result" ? Infinity : stride, "work");
    for (let unit = await next(); unit; unit = await next()) {
      units.push(unit);
      assert.ok(units.length < 30, units.join(" "));
    }
    assert.deepEqual(await lab.hashes("work.out"), await Lab.whole(name), units.join(" "));
    assert.ok(units.length * stride >= 3 + BLOCKS, units.join(" ")); // texts, blocks, dense, result
    assert.deepEqual(lab.left, ["source", "text.jsonl", "work", "work.out"]);
  });
}

Deno.test("compress() goes on behind any series of stops", async () => {
  await using lab = await Lab.make();
  const name = "int4 with feedback", whole = await Lab.whole(name);
  let round = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 2 }), async (stops) => {
      const work = `work${round++}`;
      for (const count of stops) await lab.stopBehind(name, count, work);
      assert.equal(await lab.stopBehind(name, Infinity, work), null);
      assert.deepEqual(await lab.hashes(`${work}.out`), whole);
    }),
    { numRuns: 2, seed: 7 },
  );
});

Deno.test("compress() takes the threads of the run that it goes on from, and says what it found", async () => {
  await using lab = await Lab.make();
  const name = "int4 with feedback", work = join(lab.dir, "work"), found: FoundWork[] = [];
  const onResume = (one: FoundWork) => void found.push(one);
  const stop = (behind: string) => (unit: string) => {
    if (unit === behind) throw new Stopped(unit);
  };
  await lab.run(name, "whole", { threads: 3 });
  await assert.rejects(lab.run(name, "out", { work, threads: 3, onKept: stop("block.2") }), Stopped);
  const messages: (string | undefined)[] = [];
  const onProgress = ({ message }: CompressProgress) => void messages.push(message);
  const { seconds, phases } = await lab.run(name, "out", { work, threads: undefined, onResume, onProgress });
  assert.ok(messages.includes(`Resumed at block 3 of ${BLOCKS}`), messages.join());
  assert.ok(seconds > 0 && phases.sample! > 0);
  assert.deepEqual(await lab.hashes("out"), await lab.hashes("whole"));
  assert.deepEqual(found, [{ resumed: true, why: null }]);
});

Deno.test("compress() begins anew where source, text, recipe or threads differ", async () => {
  await using lab = await Lab.make();
  const name = "int4 with feedback", work = join(lab.dir, "work"), whys: (string | null)[] = [];
  const onResume = ({ why }: FoundWork) => void whys.push(why);
  const onKept = (unit: string) => {
    if (unit === "block.0") throw new Stopped(unit);
  };
  const stopped = (over: Partial<CompressOptions>, recipe: RecipeName | RecipeInput = name) =>
    assert.rejects(lab.run(recipe, "out", { work, onResume, onKept, ...over }), Stopped);
  await stopped({ threads: 2 });
  await stopped({});
  await stopped({}, { ...RECIPES[name], values: "int3" });
  await lab.writeText(2);
  await stopped({}, { ...RECIPES[name], values: "int3" });
  assert.deepEqual(whys, ["another number of threads", "another recipe", whys[2]]);
  assert.match(whys[2]!, /text that has changed/);
});

Deno.test("compress() makes again what is damaged in its work folder", async () => {
  await using lab = await Lab.make();
  const name = "int4 with feedback", work = join(lab.dir, "work"), whole = await Lab.whole(name);
  const damages: Record<string, (path: string) => Promise<void>> = {
    "units/block.1": (path) => Deno.writeTextFile(path, "rubbish"),
    "artifact.partial/model.safetensors": (path) => Deno.truncate(path, 60_000),
    "manifest": (path) => Deno.truncate(path, 3),
    "values": (path) => Deno.remove(path, { recursive: true }),
  };
  await lab.stopBehind(name, 6, "work");
  await Deno.rename(work, `${work}.stopped`);
  for (const [file, damage] of Object.entries(damages)) {
    await new Deno.Command("cp", { args: ["-a", `${work}.stopped`, work] }).output();
    await damage(join(work, file));
    await lab.run(name, "work.out", { work });
    assert.deepEqual(await lab.hashes("work.out"), whole, file);
    await Deno.remove(work, { recursive: true });
    await Deno.remove(join(lab.dir, "work.out"), { recursive: true });
  }
});

Deno.test("compress() refuses a work folder that another run uses, and an artifact that is not its own", async () => {
  await using lab = await Lab.make();
  const name = "int4 with feedback", work = join(lab.dir, "work");
  const conflict = (e: unknown) => e instanceof OatmillError && e.code === "conflict";
  let second: Promise<unknown> | null = null;
  const onProgress = () => second ??= assert.rejects(lab.run(name, "other", { work }), conflict);
  const first = await lab.run(name, "out", { work, onProgress });
  await second;
  // Ended behind the rename: what it had found is said again.
  assert.deepEqual((await lab.run(name, "out", { work })).header, first.header);
  await Deno.remove(work, { recursive: true });
  await assert.rejects(lab.run(name, "out", { work }), conflict);
  assert.deepEqual(lab.left, ["out", "source", "text.jsonl"]);
});
