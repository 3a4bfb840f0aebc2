/** Pruned blocks compute what they should: against the plain forward, and through the engine. */
import assert from "node:assert/strict";
import { loadEngine } from "../../engine/engine.ts";
import type { Checkpoint, Weight, WeightRole } from "../../models/checkpoint.ts";
import { packDense } from "../../models/pack_dense.ts";
import { type LinearKind, linearShapes, type ModelSpec } from "../../models/spec.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../../models/testing/reference_forward.ts";
import { SMALL_DECODER } from "../../models/testing/small_spec.ts";
import { embed, readBlock, readEmbedding, runBlockOver } from "../forward/dense_forward.ts";
import { LinalgPool } from "../linalg/pool.ts";
import { shared } from "../statistics.ts";
import { BlockPruning } from "./block_pruning.ts";
import { blockParameters } from "./sizes.ts";

/** f32 sums of tens of terms around 1, through two blocks; logits are of size 5. */
const TOLERANCE = 2e-4;
/** The same where correction replaces inputs: its damping leaves a thousandth of them. */
const CORRECTED_TOLERANCE = 0.1;

const ENCODER: ModelSpec = {
  ...SMALL_DECODER,
  norm: { kind: "layernorm", eps: 1e-6 },
  attention: { ...SMALL_DECODER.attention, causal: false, rope: null },
  mlp: { intermediateSize: 64, activation: "gelu", gated: false },
  biases: ["q", "k", "v", "o", "up", "down"],
};
const IDS = Array.from({ length: 30 }, (_, i) => (i * 7 + 3) % 60);

/** Changes weights of a checkpoint in place. */
async function change(
  checkpoint: Checkpoint,
  edit: (name: LinearKind, weight: Weight) => void,
): Promise<Checkpoint> {
  for (let i = 0; i < checkpoint.spec.blocks; i++) {
    for (const name of Object.keys(linearShapes(checkpoint.spec)) as LinearKind[]) {
      edit(name, await checkpoint.read(`block.${i}.${name}`));
    }
  }
  return checkpoint;
}

function zeroColumns({ data, shape: [, dIn] }: Weight, from: number, to: number): void {
  for (let at = 0; at < data.length; at++) if (at % dIn >= from && at % dIn < to) data[at] = 0;
}
const copyRow = ({ data, shape: [, dIn] }: Weight, from: number, to: number, factor: number): void =>
  data.subarray(to * dIn, (to + 1) * dIn).forEach((_, j, row) => row[j] = factor * data[from * dIn + j]);

interface Options {
  readonly rates: readonly number[];
  readonly dense?: readonly LinearKind[];
  readonly refine?: boolean;
}

/** The checkpoint, its blocks pruned on 8 random sequences. */
async function pruned(
  checkpoint: Checkpoint,
  { rates, dense = [], refine = false }: Options,
): Promise<Checkpoint> {
  using pool = new LinalgPool(1);
  const { spec } = checkpoint,
    sequences = Array.from(
      { length: 8 },
      (_, s) => Int32Array.from({ length: 32 }, (_, t) => (s * 31 + t * (7 + s) + t * t) % spec.vocabSize),
    );
  const residual = embed(await readEmbedding(checkpoint), sequences, shared);
  const pruning = new BlockPruning(spec, { dense: [...dense], rates, pool });
  const weights = new Map<WeightRole, Weight>();
  for (let i = 0; i < spec.blocks; i++) {
    const block = await readBlock(checkpoint, i);
    const statistics = await runBlockOver(residual, block, {
      block: i,
      checkpoint,
      pool,
      collect: true,
      momentSequences: refine ? 8 : 0,
      write: true,
      sink: refine,
    });
    for (const [name, { data, shape }] of Object.entries((await pruning.prune(block, statistics!)).weights)) {
      weights.set(`block.${i}.${name}` as WeightRole, { data: new Float32Array(data), shape });
    }
  }
  const read = (role: WeightRole) =>
    weights.has(role) ? Promise.resolve(weights.get(role)!) : checkpoint.read(role);
  return { ...checkpoint, spec: pruning.spec, read };
}

/** Logits of every position, or an encoder's states. */
async function served(checkpoint: Checkpoint): Promise<Float32Array> {
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 1 });
  try {
    return await (checkpoint.spec.attention.causal ? engine.logits(IDS, { from: 0 }) : engine.encode(IDS));
  } finally {
    await engine.close();
  }
}

async function reference(checkpoint: Checkpoint): Promise<number[]> {
  const model = await ReferenceModel.load(checkpoint);
  const rows = checkpoint.spec.attention.causal ? model.logits(IDS, true) : model.hiddenStates(IDS);
  return rows.flatMap((row) => [...row]);
}
const difference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

for (const [name, spec] of [["decoder", SMALL_DECODER], ["encoder", ENCODER]] as const) {
  test(`heads and channels that say nothing can go and change nothing: ${name}`, async () => {
    // A query head of every group and the third group as a whole; 16 channels.
    const checkpoint = await change(randomCheckpoint(spec), (layer, weight) => {
      if (layer === "o") { for (const head of [0, 3, 4, 5]) zeroColumns(weight, head * 8, head * 8 + 8); }
      if (layer === "down") zeroColumns(weight, 20, 36);
    });
    const all = blockParameters(spec);
    // q and o lose 4 heads of 8 rows, k and v a group.
    const goes = 2 * 4 * 8 * 40 + 2 * 8 * 40 + 16 * (spec.mlp.gated ? 3 : 2) * 40;
    const smaller = await pruned(checkpoint, { rates: [goes / all, goes / all] });
    assert.deepEqual(
      smaller.spec.blockSizes,
      [0, 1].map(() => ({ heads: 2, kvHeads: 2, intermediateSize: 48 })),
    );
    const logits = await served(smaller);
    assert.ok(difference(logits, await reference(checkpoint)) < TOLERANCE);
  });

  test(`a pruned model is served as the plain forward of its weights: ${name}`, async () => {
    const smaller = await pruned(randomCheckpoint(spec), { rates: [0.5, 0.2], refine: true });
    assert.ok(difference(await served(smaller), await reference(smaller)) < TOLERANCE);
  });
}

test("channels and heads that repeat others can go when the others are corrected", async () => {
  const checkpoint = await change(randomCheckpoint(SMALL_DECODER), (layer, weight) => {
    // Channels 16.. repeat 0..15; head 1, 3, 5 their neighbours in the group.
    if (layer === "gate" || layer === "up") {
      for (let i = 16; i < 64; i++) copyRow(weight, i % 16, i, layer === "up" ? 1 + i % 3 : 1);
    }
    if (layer === "q") {
      for (let i = 0; i < 8; i++) {
        for (const head of [1, 3, 5]) copyRow(weight, head * 8 - 8 + i, head * 8 + i, 1);
      }
    }
  });
  for (let block = 0; block < 2; block++) {
    const { data } = await checkpoint.read(`block.${block}.q.bias`);
    for (const head of [1, 3, 5]) data.copyWithin(head * 8, head * 8 - 8, head * 8);
  }
  const goes = (2 * 3 * 8 + 3 * 48) * 40 / blockParameters(SMALL_DECODER), rates = [goes, goes];
  const corrected = await pruned(checkpoint, { rates, refine: true });
  assert.deepEqual(
    corrected.spec.blockSizes,
    [0, 1].map(() => ({ heads: 3, kvHeads: 3, intermediateSize: 16 })),
  );
  const expected = await reference(checkpoint);
  const worst = difference(await served(corrected), expected);
  assert.ok(worst < CORRECTED_TOLERANCE, `${worst}`);
  assert.ok(
    difference(await served(await pruned(checkpoint, { rates })), expected) > 5 * CORRECTED_TOLERANCE,
  );
});

test("everything but one head and one unit of channels can go, and nothing", async () => {
  const checkpoint = randomCheckpoint(SMALL_DECODER);
  const least = await pruned(checkpoint, { rates: [0.95, 0.95], refine: true });
  // The first block keeps a head that is less than half a unit of channels; the second makes up for it.
  assert.deepEqual(least.spec.blockSizes, [
    { heads: 2, kvHeads: 1, intermediateSize: 16 },
    { heads: 1, kvHeads: 1, intermediateSize: 16 },
  ]);
  assert.ok(difference(await served(least), await reference(least)) < TOLERANCE);
  const same = await pruned(checkpoint, { rates: [0, 0] });
  assert.deepEqual(same.spec.blockSizes, [0, 1].map(() => ({ heads: 6, kvHeads: 3, intermediateSize: 64 })));
  assert.ok(difference(await served(same), await reference(checkpoint)) < TOLERANCE);
});

test("prune() leaves the whole block's o and down as what the smaller block computes", async () => {
  using pool = new LinalgPool(1);
  const checkpoint = randomCheckpoint(SMALL_DECODER),
    before = await readBlock(checkpoint, 0),
    block = await readBlock(checkpoint, 0);
  const ones = (n: number) => ({ d: shared(n).fill(1), H: null });
  const statistics = { attn: ones(40), o: ones(48), mlp: ones(40), down: ones(64) };
  const { weights } = await new BlockPruning(SMALL_DECODER, { dense: [], rates: [0.3, 0.3], pool }).prune(
    block,
    statistics,
  );
  for (const name of ["o", "down"] as const) {
    const left = Array.from(block[name].data).filter((x) => x !== 0);
    assert.deepEqual(left, Array.from(weights[name].data));
  }
  assert.ok(
    weights.o.data.length + weights.down.data.length < before.o.data.length + before.down.data.length,
  );
  assert.deepEqual(block.q, before.q);
});

test("prune() takes the next block while one is under way, and what one misses the next makes up for", async () => {
  const checkpoint = randomCheckpoint(SMALL_DECODER);
  const ones = (n: number) => ({ d: shared(n).fill(1), H: null });
  const statistics = { attn: ones(40), o: ones(48), mlp: ones(40), down: ones(64) };
  const sizes = async (atOnce: boolean) => {
    using pool = new LinalgPool(2);
    const pruning = new BlockPruning(SMALL_DECODER, { dense: [], rates: [0.95, 0.3], pool });
    const first = pruning.prune(await readBlock(checkpoint, 0), statistics);
    if (!atOnce) await first;
    await Promise.all([first, pruning.prune(await readBlock(checkpoint, 1), statistics)]);
    return pruning.spec.blockSizes;
  };
  assert.deepEqual(await sizes(true), await sizes(false));
});
