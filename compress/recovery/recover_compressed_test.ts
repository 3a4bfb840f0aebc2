/** A recovery from recipe to artifact, on a small model of random weights. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { writeSyntheticCheckpoint } from "../../bench/synthetic_checkpoint.ts";
import { OatmillError } from "../../errors.ts";
import { openArtifact } from "../../models/formats/artifact.ts";
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import { artifactVersion } from "../../models/formats/artifact_version.ts";
import type { RecipeInput } from "../../models/recipe.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { compress } from "../pipeline.ts";
import { seededRandom } from "../random.ts";
import type { CompressOptions, CompressProgress } from "../types.ts";
import { recoverArtifact } from "./recover_artifact.ts";

const LENGTH = 32;
/** The text has 24 sequences, and the recipe asks for more: they are read again. */
const RECIPE: RecipeInput = {
  method: "oats",
  rate: 0.5,
  iterations: 1,
  refine: false,
  allocation: "uniform",
  calibration: { sequences: 3, length: LENGTH },
  evaluate: { tokens: 128 },
  recover: { tokens: 32 * LENGTH, length: LENGTH, learning_rate: 3e-4 },
};
class Stopped extends Error {}

class Lab implements AsyncDisposable {
  private constructor(readonly dir: string) {}

  static async make(): Promise<Lab> {
    const dir = await Deno.makeTempDir(), lab = new Lab(dir), random = seededRandom(1);
    await Deno.mkdir(lab.source);
    // Tied tables of random rows would be sure of every token.
    await writeSyntheticCheckpoint(lab.source, { ...SYNTHETIC_SPECS.tiny, tiedEmbeddings: false });
    const line = () => JSON.stringify(Array.from({ length: LENGTH }, () => random.below(256)));
    await Deno.writeTextFile(lab.text, Array.from({ length: 24 }, line).join("\n"));
    return lab;
  }
  get source(): string {
    return join(this.dir, "source");
  }
  get text(): string {
    return join(this.dir, "text.jsonl");
  }
  get left(): string[] {
    return [...Deno.readDirSync(this.dir)].map(({ name }) => name).sort();
  }
  async compress(out: string, over: RecipeInput = {}, options: Partial<CompressOptions> = {}) {
    const { header } = await compress({
      source: this.source,
      out: join(this.dir, out),
      name: "model",
      recipe: { ...RECIPE, ...over, calibration: { ...RECIPE.calibration, text: this.text } },
      threads: 1,
      copyShare: Infinity,
      ...options,
    });
    return header as ArtifactHeader;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }
}

Deno.test("compress() recovers what its recipe says, and says what it took and gave back", async () => {
  await using lab = await Lab.make();
  const told: CompressProgress[] = [];
  const header = await lab.compress("out", {}, { onProgress: (p) => void told.push(p) });
  const { recovery, perplexity, recipe } = header;
  const { kind, train, tokens, steps, stopped, loss, text, learningRate } = recovery!;
  assert.deepEqual(
    [kind, train, tokens, steps, stopped, text, learningRate],
    ["distill", "lowrank+sparse", 32 * LENGTH, 16, "tokens", "text.jsonl", 3e-4],
  );
  assert.ok(loss.after < loss.before, JSON.stringify(loss));
  assert.ok(recovery!.seconds > 0 && recovery!.tokensPerSecond > 0 && recovery!.peakRssBytes > 0);
  assert.deepEqual(
    [recovery!.perplexity!.dense, recovery!.perplexity!.after],
    [perplexity!.dense, perplexity!.compressed],
  );
  assert.notEqual(recovery!.perplexity!.before, recovery!.perplexity!.after);
  assert.equal(recipe.recover!.tokens, 32 * LENGTH);
  assert.deepEqual((await openArtifact(join(lab.dir, "out"))).header, header);
  assert.deepEqual(lab.left, ["out", "source", "text.jsonl"]);
  const steps_ = told.filter(({ phase, loss }) => phase === "recover" && loss !== undefined);
  assert.equal(steps_.at(-1)!.done, steps_.at(-1)!.total);
  assert.ok(steps_.every(({ tokensPerSecond, etaSeconds }) => tokensPerSecond! > 0 && etaSeconds! >= 0));
});

Deno.test("compress() keeps the best of a recovery that is stopped, and nothing of one that is cancelled", async () => {
  await using lab = await Lab.make();
  const stop = new AbortController(), abort = new AbortController();
  const at = (controller: AbortController) => ({ phase, loss }: CompressProgress) => {
    if (phase === "recover" && loss !== undefined) controller.abort();
  };
  const options = { stop: stop.signal, onProgress: at(stop) };
  const { recovery, perplexity } = await lab.compress("stopped", {}, options);
  assert.equal(recovery!.stopped, "cancelled");
  assert.ok(recovery!.steps < 16 && recovery!.loss.after <= recovery!.loss.before);
  assert.equal(recovery!.perplexity!.after, perplexity!.compressed);
  const cancelled = lab.compress("out", {}, { signal: abort.signal, onProgress: at(abort) });
  await assert.rejects(cancelled, (e) => e instanceof OatmillError && e.code === "cancelled");
  assert.deepEqual(lab.left, ["source", "stopped", "text.jsonl"]);
});

Deno.test("compress() goes on with a recovery wherever it ended", async () => {
  await using lab = await Lab.make();
  const over: RecipeInput = { recover: { tokens: 12 * LENGTH, length: LENGTH } };
  const whole = await lab.compress("whole", over), work = join(lab.dir, "work");
  // Texts are chosen; the third step is taken; the new artifact is written; undisturbed.
  for (const [unit, times] of [["recover.texts", 1], ["recovery", 3], ["recovered", 1]] as const) {
    let left = times as number;
    const onKept = (one: string) => {
      if (one === unit && --left === 0) throw new Stopped(unit);
    };
    await assert.rejects(lab.compress("out", over, { work, onKept }), Stopped, unit);
  }
  const phases = new Set<string>();
  const made = await lab.compress("out", over, { work, onProgress: ({ phase }) => void phases.add(phase) });
  assert.deepEqual([...phases], ["evaluate"]);
  assert.equal(artifactVersion(made), artifactVersion(whole));
  const same = (
    { recovery: r, perplexity }: ArtifactHeader,
  ) => [r!.loss, r!.steps, r!.perplexity, perplexity];
  assert.deepEqual(same(made), same(whole));
});

Deno.test("recoverArtifact() makes a new artifact beside one that is there, of the text it is given", async () => {
  await using lab = await Lab.make();
  await lab.compress("made", { recover: null });
  const hash = async (folder: string) =>
    createHash("sha256").update(await Deno.readFile(join(lab.dir, folder, "model.safetensors"))).digest(
      "hex",
    );
  const before = await hash("made"),
    options = {
      artifact: join(lab.dir, "made"),
      source: lab.source,
      out: join(lab.dir, "out"),
      threads: 1,
    };
  const recover = { tokens: 8 * LENGTH, length: LENGTH, text: lab.text, train: "lowrank" } as const;
  const { header } = await recoverArtifact({ ...options, recover, evaluate: { tokens: 128 } });
  const { recovery, perplexity, tensors, name, recipe } = header as ArtifactHeader;
  assert.deepEqual([recovery!.train, recovery!.stopped, name], ["lowrank", "tokens", "model"]);
  assert.equal(perplexity!.text, "held back from text.jsonl");
  assert.deepEqual(recovery!.perplexity, {
    dense: perplexity!.dense,
    before: recovery!.perplexity!.before,
    after: perplexity!.compressed,
  });
  assert.deepEqual([recipe.method, recipe.recover!.train], ["oats", "lowrank"]);
  const made = (await openArtifact(options.artifact)).header;
  assert.deepEqual(tensors, made.tensors);
  assert.deepEqual([await hash("made"), await hash("out") === before], [before, false]);

  const refused = (over: object, code: string, message: RegExp) =>
    assert.rejects(
      recoverArtifact({ ...options, out: join(lab.dir, "other"), recover, ...over }),
      (e) => e instanceof OatmillError && e.code === code && message.test(e.message),
    );
  await refused({ out: options.out }, "conflict", /already exists/);
  await refused(
    { source: new URL("../../models/default", import.meta.url).pathname },
    "invalid_request",
    /other sizes/,
  );
  await refused({ recover: { tokens: 8 } }, "invalid_recipe", /recover\.tokens/);
  await refused({ recover: { ...recover, length: 256 } }, "invalid_recipe", /sequence/);
  assert.deepEqual(lab.left, ["made", "out", "source", "text.jsonl"]);
});
