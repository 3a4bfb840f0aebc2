/** Models whose blocks have different numbers of heads and channels, against the plain forward. */
import assert from "node:assert/strict";
import { PART_TOKENS } from "../kernels/kv_layout.ts";
import { packDense } from "../models/pack_dense.ts";
import type { ModelSpec } from "../models/spec.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { SMALL_DECODER } from "../models/testing/small_spec.ts";
import { loadEngine } from "./engine.ts";
import { type EngineOptions, GREEDY } from "./types.ts";

/** f32 sums of tens of terms around 1, through three blocks. */
const TOLERANCE = 2e-4;

const DECODER: ModelSpec = {
  ...SMALL_DECODER,
  blocks: 3,
  contextLength: 1000,
  mlp: { intermediateSize: 54, activation: "silu", gated: true },
  blockSizes: [
    { heads: 3, kvHeads: 3, intermediateSize: 54 },
    { heads: 2, kvHeads: 1, intermediateSize: 6 },
    { heads: 6, kvHeads: 3, intermediateSize: 33 },
  ],
};
const ENCODER: ModelSpec = {
  ...DECODER,
  norm: { kind: "layernorm", eps: 1e-6 },
  attention: { ...DECODER.attention, causal: false, rope: null },
  mlp: { intermediateSize: 54, activation: "gelu", gated: false },
  biases: ["q", "k", "v", "o", "up", "down"],
};
const ids = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + length) % 60);

async function compare(spec: ModelSpec, options: EngineOptions, lengths: readonly number[]): Promise<void> {
  const checkpoint = randomCheckpoint(spec);
  const reference = await ReferenceModel.load(checkpoint);
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), options);
  try {
    const { causal } = spec.attention;
    const answers = await Promise.all(
      lengths.map((n) => causal ? engine.logits(ids(n), { from: 0 }) : engine.encode(ids(n))),
    );
    lengths.forEach((n, i) => {
      const rows = causal ? reference.logits(ids(n), true) : reference.hiddenStates(ids(n));
      const worst = Math.max(...rows.flatMap((row) => [...row]).map((x, at) => Math.abs(x - answers[i][at])));
      assert.ok(worst < TOLERANCE, `${n} tokens: ${worst}`);
    });
  } finally {
    await engine.close();
  }
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

for (const threads of [1, 2]) {
  test(`blocks of different sizes equal the plain forward on ${threads} thread(s)`, async () => {
    await compare(DECODER, { threads }, [1, 9, 40]);
    await compare(ENCODER, { threads }, [1, 30]);
  });
}

test("blocks of different sizes decode over a context that threads share, from several memories", async () => {
  const checkpoint = randomCheckpoint(DECODER);
  const reference = await ReferenceModel.load(checkpoint);
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), {
    threads: 2,
    maxSequences: 1,
    kvTokens: 560,
    speculation: false,
    memoryLimitBytes: 2_400_000, // all of it takes 2.6 MB
  });
  try {
    const text = ids(PART_TOKENS + 20);
    const request = { promptIds: [...text], maxTokens: 3, stopIds: [], sampling: GREEDY, logprobs: null };
    for await (const event of engine.generate(request)) if (event.type === "token") text.push(event.token);
    const likeliest = reference.logits(text.slice(0, -1), true).slice(PART_TOKENS + 19)
      .map((logits) => logits.indexOf(Math.max(...logits)));
    assert.deepEqual(text.slice(PART_TOKENS + 20), likeliest);
    assert.equal(text.length, PART_TOKENS + 23);
  } finally {
    await engine.close();
  }
});
