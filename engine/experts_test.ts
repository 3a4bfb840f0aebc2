/** Mixture of experts in the engine: against the plain forward, and the same bits in any company, threads and memories. */
import assert from "node:assert/strict";
import { packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { SMALL_DECODER } from "../models/testing/small_spec.ts";
import { loadEngine } from "./engine.ts";
import { type Engine, type EngineOptions, GREEDY } from "./types.ts";

/** f32 sums of tens of terms around 1, through two blocks. */
const TOLERANCE = 2e-4;

const SPEC: ModelSpec = {
  ...SMALL_DECODER,
  hiddenSize: 44,
  contextLength: 256,
  mlp: { intermediateSize: 70, activation: "silu", gated: true, experts: { count: 5, perToken: 2 } },
  biases: ["q"],
};
const ids = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + length) % 60);
const LENGTHS = [1, 2, 9, 40, 130];

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

for (const threads of [1, 2]) {
  test(`experts equal the plain forward on ${threads} thread(s), with and without gates`, async () => {
    for (const mlp of [SPEC.mlp, { ...SPEC.mlp, gated: false, experts: { count: 3, perToken: 1 } }]) {
      const checkpoint = randomCheckpoint({ ...SPEC, mlp });
      const reference = await ReferenceModel.load(checkpoint);
      const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads });
      const answers = await Promise.all(LENGTHS.map((n) => engine.logits(ids(n), { from: 0 })));
      LENGTHS.forEach((n, i) => {
        const rows = reference.logits(ids(n), true).flatMap((row) => [...row]);
        const worst = Math.max(...rows.map((x, at) => Math.abs(x - answers[i][at])));
        assert.ok(worst < TOLERANCE, `${n} tokens: ${worst}`);
      });
      await engine.close();
    }
  });
}

async function greedy(engine: Engine, promptIds: readonly number[]): Promise<number[]> {
  const tokens: number[] = [];
  const request = { promptIds, maxTokens: 12, stopIds: [], sampling: GREEDY, logprobs: 0 };
  for await (const e of engine.generate(request)) {
    if (e.type === "token") tokens.push(e.token, e.logprobs!.logprob);
  }
  return tokens;
}

/** What one after the other and all at once give. */
async function answers(options: EngineOptions) {
  const engine = await loadEngine(packDense(randomCheckpoint(SPEC), { values: "int8" }), {
    prefixCache: false,
    ...options,
  });
  try {
    const logits = await engine.logits(ids(130), { from: 0 });
    const alone: number[][] = [];
    for (const n of LENGTHS) alone.push(await greedy(engine, ids(n)));
    const together = await Promise.all(LENGTHS.map((n) => greedy(engine, ids(n))));
    return { logits, alone, together, memoryBytes: engine.stats().memoryBytes };
  } finally {
    await engine.close();
  }
}

test("quantised experts give the same bits alone and together, on any threads and memories", async () => {
  const { memoryBytes, ...expected } = await answers({ threads: 1 });
  assert.deepEqual(expected.together, expected.alone);
  for (
    const options of [{ threads: 2 }, { threads: 3 }, {
      threads: 2,
      memoryLimitBytes: Math.floor(0.99 * memoryBytes),
    }]
  ) {
    const { memoryBytes: _, ...found } = await answers(options);
    assert.deepEqual(found, expected, JSON.stringify(options));
  }
});
