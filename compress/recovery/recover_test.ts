/** Both kinds of recovery on a small model of random weights. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { prunedModel } from "../../bench/pruned_model.ts";
import { writeSyntheticCheckpoint } from "../../bench/synthetic_checkpoint.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import { openCheckpoint } from "../../models/open.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { readEmbedding } from "../forward/dense_forward.ts";
import { LinalgPool } from "../linalg/pool.ts";
import { seededRandom } from "../random.ts";
import { Journal } from "../resume/journal.ts";
import { shared } from "../statistics.ts";
import { WorkSpace } from "../work_space.ts";
import { distillObjective } from "./distill.ts";
import { RECOVER_DEFAULTS, type RecoverKind, type RecoverOptions } from "./options.ts";
import type { TrainableModel } from "./parameters.ts";
import { recoverModel } from "./recover.ts";
import { denseTargets } from "./targets.ts";
import type { RecoverReport, RecoverRun } from "./types.ts";

const LENGTH = 16, KINDS = ["distill", "blockwise"] as const;

class Stopped extends Error {}

/** A model on the disk, and recoveries of it. */
class Lab implements AsyncDisposable {
  /** By threads. */
  readonly #pools = new Map<number, LinalgPool>();

  private constructor(readonly dir: string, readonly checkpoint: Checkpoint) {}

  static async open(): Promise<Lab> {
    const dir = await Deno.makeTempDir(), source = join(dir, "source");
    await Deno.mkdir(source);
    // Tied tables of random rows would be sure of every token.
    await writeSyntheticCheckpoint(source, { ...SYNTHETIC_SPECS.tiny, tiedEmbeddings: false });
    return new Lab(dir, await openCheckpoint(source));
  }

  pool(threads: number): LinalgPool {
    const pool = this.#pools.get(threads) ?? new LinalgPool(threads);
    this.#pools.set(threads, pool);
    return pool;
  }

  model(): Promise<TrainableModel> {
    return prunedModel(this.checkpoint, { rate: 0.5, rankRatio: 0.2 });
  }

  texts(): Pick<RecoverRun, "sequences" | "heldOut"> {
    const random = seededRandom(2);
    const ids = () => Int32Array.from({ length: LENGTH }, () => random.below(256));
    return { sequences: Array.from({ length: 6 }, ids), heldOut: Array.from({ length: 3 }, ids) };
  }

  async recover(
    kind: RecoverKind,
    { threads = 2, journal = Journal.open(null), options = {}, ...over }:
      & Partial<Omit<RecoverRun, "options">>
      & { readonly threads?: number; readonly options?: Partial<RecoverOptions> } = {},
  ): Promise<{ readonly model: TrainableModel; readonly report: RecoverReport }> {
    using space = WorkSpace.open(join(this.dir, `space.${kind}`));
    const model = await this.model(), { checkpoint } = this;
    const report = await recoverModel({
      model,
      checkpoint,
      ...this.texts(),
      pool: this.pool(threads),
      space,
      journal,
      options: {
        ...RECOVER_DEFAULTS[kind],
        tokens: 6 * 2 * LENGTH,
        learningRate: 2e-3,
        evaluations: 3,
        ...options,
      },
      ...over,
    });
    return { model, report };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pool of this.#pools.values()) pool.close();
    this.checkpoint.close();
    await Deno.remove(this.dir, { recursive: true });
  }
}

const valuesOf = ({ blocks, finalNorm }: TrainableModel): Float32Array[] => [
  ...blocks.map(({ values }) => values),
  finalNorm!.weight,
];

Deno.test("recoverModel() and its objective", async (t) => {
  await using lab = await Lab.open(); // its workers have the graphs of one step for the next
  await t.step(
    "recoverModel() brings the held-out loss down in both kinds, alike for any threads",
    async () => {
      for (const kind of KINDS) {
        const [one, two] = [await lab.recover(kind, { threads: 1 }), await lab.recover(kind)];
        const { loss, stopped, tokens } = two.report;
        assert.ok(loss.after < 0.99 * loss.before, `${kind}: ${loss.before} -> ${loss.after}`);
        assert.deepEqual([stopped, tokens], ["tokens", 6 * 2 * LENGTH]);
        assert.deepEqual(valuesOf(one.model), valuesOf(two.model));
      }
    },
  );

  await t.step("recoverModel() of the low-rank part leaves S as it was", async () => {
    const before = await lab.model(),
      { model, report } = await lab.recover("distill", { options: { train: "lowrank" } });
    assert.ok(report.loss.after < report.loss.before);
    model.blocks.forEach(({ layers }, i) =>
      layers.forEach(({ kept, U }, j) => {
        assert.deepEqual(kept, before.blocks[i].layers[j].kept);
        assert.notDeepEqual(U, before.blocks[i].layers[j].U);
      })
    );
  });

  await t.step("recoverModel() stopped after any unit goes on to the same bits", async () => {
    for (const kind of KINDS) {
      const whole = await lab.recover(kind), folder = join(lab.dir, `journal.${kind}`);
      for (let runs = 0;; runs++) {
        let kept = 0;
        const journal = Journal.open(folder, () => {
          if (++kept === 3) throw new Stopped();
        });
        const found = await lab.recover(kind, { journal, costShare: Infinity }).catch((error) => {
          if (error instanceof Stopped) return null;
          throw error;
        });
        assert.ok(runs < 40);
        if (!found) continue;
        assert.ok(runs > 1, "it was stopped several times");
        assert.deepEqual(valuesOf(found.model), valuesOf(whole.model));
        for (const field of ["steps", "tokens", "loss", "stopped"] as const) {
          assert.deepEqual(found.report[field], whole.report[field]);
        }
        break;
      }
    }
  });

  await t.step("recoverModel() that is cancelled at once leaves the model as it was", async () => {
    for (const kind of KINDS) {
      const { model, report } = await lab.recover(kind, { signal: AbortSignal.abort() });
      assert.equal(report.stopped, "cancelled");
      assert.deepEqual(valuesOf(model), valuesOf(await lab.model()));
    }
  });

  await t.step(
    "distillObjective() has the loss's gradient: a small step along it gains what it says",
    async () => {
      using space = WorkSpace.open(join(lab.dir, "space"));
      const model = await lab.model(), { checkpoint } = lab, embedding = await readEmbedding(checkpoint);
      const run = {
        model,
        checkpoint,
        ...lab.texts(),
        pool: lab.pool(1),
        space,
        journal: Journal.open(null),
        options: RECOVER_DEFAULTS.distill,
      };
      const targets = await denseTargets(run, embedding, () => true);
      const { vectors, pass } = await distillObjective({ ...run, embedding, targets: targets! });
      const gradients = vectors.map(({ length }) => shared(length)), sequences = [0, 1, 2];
      await pass(sequences, gradients);
      // Of each vector by itself: the sums along all of them would hide one that is missing.
      for (const [i, gradient] of gradients.entries()) {
        const square = gradient.reduce((sum, g) => sum + g * g, 0), step = 2e-3 / Math.sqrt(square);
        const moved = async (by: number) => {
          const before = vectors[i].slice();
          gradient.forEach((g, j) => vectors[i][j] += by * g);
          const { loss } = await pass(sequences, null);
          vectors[i].set(before);
          return loss;
        };
        const slope = (await moved(step) - await moved(-step)) / (2 * step);
        assert.ok(Math.abs(slope / square - 1) < 0.02, `vector ${i}: ${slope} is not ${square}`);
      }
    },
  );
});
