/** LoRA adapters in the engine: against the merged weights, in any company, threads and memories, coming and going. */
import assert from "node:assert/strict";
import { packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { merged, randomAdapter } from "../models/testing/random_adapter.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { SMALL_DECODER } from "../models/testing/small_spec.ts";
import { loadEngine } from "./engine.ts";

/** f32 sums of tens of terms around 1, through two blocks. */
const TOLERANCE = 2e-4;

const SPEC: ModelSpec = { ...SMALL_DECODER, hiddenSize: 44, contextLength: 256 };
const ids = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + length) % 60);

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

const KINDS = ["q", "k", "v", "o", "gate", "up", "down"] as const;

test("an adapter of any kind of layer and any rank gives the merged weights' logits", async () => {
  const checkpoint = randomCheckpoint(SPEC);
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads: 2 });
  const cases = [
    ...KINDS.map((kind, i) => ({ kinds: [kind], rank: [1, 3, 4, 5, 8, 16, 33][i], seed: i })),
    { kinds: KINDS, rank: 6, seed: 9 },
  ];
  for (const [i, one] of cases.entries()) {
    const adapter = randomAdapter(SPEC, one);
    await engine.addAdapter(`a${i}`, adapter);
    const reference = await ReferenceModel.load(merged(checkpoint, adapter));
    for (const length of [1, 2, 30]) {
      const rows = reference.logits(ids(length), true).flatMap((row) => [...row]);
      const logits = await engine.logits(ids(length), { from: 0, adapter: `a${i}` });
      const worst = Math.max(...rows.map((x, at) => Math.abs(x - logits[at])));
      assert.ok(worst < TOLERANCE, `${one.kinds} of rank ${one.rank}, ${length} tokens: ${worst}`);
    }
  }
  await engine.close();
});
