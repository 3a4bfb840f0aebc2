/** LoRA adapters in the engine: against the merged weights, coming and going, and what is refused. */
import assert from "node:assert/strict";
import type { LoraAdapter } from "../models/adapter.ts";
import type { Checkpoint } from "../models/checkpoint.ts";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { syntheticAdapter } from "../models/synthetic_adapter.ts";
import { merged } from "../models/testing/merged.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { SMALL_DECODER } from "../models/testing/small_spec.ts";
import { splitModel } from "../models/testing/split_model.ts";
import { loadEngine } from "./engine.ts";
import type { Engine } from "./types.ts";

/** f32 sums of tens of terms around 1, through two blocks. */
const TOLERANCE = 2e-4;
/** As of the oracles (oracles_test.ts). */
const ORACLE_TOLERANCE = 1e-3;

const BUNDLED = new URL("../models/default/", import.meta.url).pathname;
const SPEC: ModelSpec = { ...SMALL_DECODER, hiddenSize: 44, contextLength: 256 };
const KINDS = ["q", "k", "v", "o", "gate", "up", "down"] as const;
const ids = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + length) % 60);

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);

/** Compares all positions' logits with those of the merged weights. */
async function compare(
  engine: Engine,
  checkpoint: Checkpoint,
  adapter: LoraAdapter,
  { name, lengths, tolerance }: { name: string; lengths: readonly number[]; tolerance: number },
): Promise<void> {
  const reference = await ReferenceModel.load(merged(checkpoint, adapter));
  for (const length of lengths) {
    const rows = reference.logits(ids(length), true).flatMap((row) => [...row]);
    const off = worst(rows, await engine.logits(ids(length), { from: 0, adapter: name }));
    assert.ok(off < tolerance, `${name}, ${length} tokens: ${off}`);
  }
}

test("an adapter of any kind of layer and any rank gives the merged weights' logits", async () => {
  const checkpoint = randomCheckpoint(SPEC);
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 2 });
  const cases = [
    ...KINDS.map((kind, i) => ({ kinds: [kind], rank: [1, 3, 4, 5, 8, 16, 33][i], seed: i })),
    { kinds: KINDS, rank: 6, seed: 9 },
  ];
  for (const one of cases) {
    const name = `${one.kinds} of rank ${one.rank}`, adapter = syntheticAdapter(SPEC, one);
    await engine.addAdapter(name, adapter);
    await compare(engine, checkpoint, adapter, { name, lengths: [1, 2, 30], tolerance: TOLERANCE });
  }
  await engine.close();
});

for (const threads of [1, 2]) {
  test(`layers with and without L, of scaled inputs, take adapters on ${threads} thread(s)`, async () => {
    const checkpoint = randomCheckpoint(SPEC, 3), adapter = syntheticAdapter(SPEC, { kinds: KINDS, rank: 7 });
    const engine = await loadEngine(
      splitModel(checkpoint, syntheticAdapter(SPEC, { kinds: KINDS, rank: 5, seed: 5 })),
      { threads },
    );
    const tolerance = 5 * TOLERANCE; // S and U V cancel
    const none = { layers: new Map() };
    await engine.addAdapter("some", adapter);
    await engine.addAdapter("none", none);
    await compare(engine, checkpoint, none, { name: "none", lengths: [1, 30], tolerance });
    await compare(engine, checkpoint, adapter, { name: "some", lengths: [1, 2, 30, 130], tolerance });
    await engine.close();
  });
}

test("norms behind layers, parallel layers and experts' attention take adapters", async () => {
  const specs: Record<string, ModelSpec> = {
    after: { ...SPEC, norm: { ...SPEC.norm, placement: "after" } },
    around: { ...SPEC, norm: { ...SPEC.norm, placement: "around" } },
    parallel: { ...SPEC, parallel: true },
    experts: { ...SPEC, mlp: { ...SPEC.mlp, experts: { count: 3, perToken: 2 } } },
  };
  for (const [name, spec] of Object.entries(specs)) {
    const checkpoint = randomCheckpoint(spec), kinds = name === "experts" ? KINDS.slice(0, 4) : KINDS;
    const adapter = syntheticAdapter(spec, { kinds, rank: 5 });
    const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 2 });
    await engine.addAdapter(name, adapter);
    await compare(engine, checkpoint, adapter, { name, lengths: [1, 30], tolerance: TOLERANCE });
    await engine.close();
  }
});

async function equalsMerged(path: string): Promise<void> {
  const checkpoint = await openCheckpoint(path);
  const adapter = syntheticAdapter(checkpoint.spec, { kinds: KINDS, rank: 8 });
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 2 });
  await engine.addAdapter("a", adapter);
  await compare(engine, checkpoint, adapter, { name: "a", lengths: [1, 20], tolerance: ORACLE_TOLERANCE });
  await engine.close();
  checkpoint.close();
}

for (const family of ["llama2", "llama_odd", "llama3.2_tied"]) {
  const folder = `oracles/${family}`, options = { sanitizeOps: false, sanitizeResources: false };
  const equal = () => equalsMerged(shared(folder).pathname);
  oracleTest(`${family} with an adapter equals the merged weights`, folder, equal, options);
}

test("the bundled model with an adapter equals the merged weights", () => equalsMerged(BUNDLED));

/** KL divergence of q's next token from p's, mean over positions, in nats. */
function divergence(p: Float32Array, q: Float32Array, vocab: number): number {
  const logs = (row: Float32Array) => {
    const top = row.reduce((a, b) => Math.max(a, b));
    const sum = Math.log(row.reduce((n, x) => n + Math.exp(x - top), 0)) + top;
    return row.map((x) => x - sum);
  };
  let total = 0;
  for (let at = 0; at < p.length; at += vocab) {
    const a = logs(p.subarray(at, at + vocab)), b = logs(q.subarray(at, at + vocab));
    total += a.reduce((n, x, i) => n + Math.exp(x) * (x - b[i]), 0);
  }
  return total / (p.length / vocab);
}

test("beside 8-bit weights an adapter loses no more than they do", async () => {
  const checkpoint = await openCheckpoint(BUNDLED);
  const adapter = syntheticAdapter(checkpoint.spec, { kinds: KINDS, rank: 12, size: 0.3 });
  const text = Array.from({ length: 120 }, (_, i) => 3 + (i * 7919) % 2000);
  const logits = async (values: "f32" | "int8") => {
    const engine = await loadEngine(packDense(checkpoint, { values }), { threads: 2, kvFormat: "f32" });
    await engine.addAdapter("a", adapter);
    const both = [
      await engine.logits(text, { from: 0 }),
      await engine.logits(text, { from: 0, adapter: "a" }),
    ];
    await engine.close();
    return both;
  };
  const [exact, exactAdapted] = await logits("f32"), [plain, adapted] = await logits("int8");
  const vocab = checkpoint.spec.vocabSize;
  const lost = divergence(exact, plain, vocab), lostAdapted = divergence(exactAdapted, adapted, vocab);
  const changed = divergence(exact, exactAdapted, vocab);
  assert.ok(lostAdapted < 2 * lost, `${lostAdapted} with the adapter, ${lost} without`);
  assert.ok(changed > 50 * lostAdapted, `the adapter changes ${changed}`);
  checkpoint.close();
});
