/** Encoders: the whole input at once, hidden states out, against the plain forward. */
import assert from "node:assert/strict";
import type { Pixels } from "../models/classifier.ts";
import { packDense } from "../models/pack_dense.ts";
import { buildPlan } from "../models/build_plan.ts";
import type { ModelSpec } from "../models/spec.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { encoderOf } from "./encoder.ts";
import { loadEngine } from "./engine.ts";
import { GREEDY } from "./types.ts";

/** f32 sums of tens of terms around 1, through two blocks. */
const TOLERANCE = 1e-4;

/** Widths that are no multiples of what kernels take at once, as BERT has them otherwise. */
const ENCODER: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 60,
  hiddenSize: 42,
  blocks: 2,
  contextLength: 1000,
  norm: { kind: "layernorm", eps: 1e-6 },
  attention: { heads: 3, kvHeads: 3, headDim: 14, causal: false, scale: 0.3, window: null, rope: null },
  mlp: { intermediateSize: 54, activation: "gelu", gated: false },
  tiedEmbeddings: true,
  biases: ["q", "k", "v", "o", "up", "down"],
  bosId: null,
  eosIds: [],
};
const input = (length: number): number[] => Array.from({ length }, (_, i) => (i * 7 + length) % 60);

async function compare(spec: ModelSpec, threads: number, lengths: readonly number[]): Promise<void> {
  const checkpoint = randomCheckpoint(spec);
  const reference = await ReferenceModel.load(checkpoint);
  const engine = await loadEngine(packDense(checkpoint, { values: "f32" }), { threads });
  try {
    // All at once: each input is a step of its own.
    const answers = await Promise.all(lengths.map((n) => engine.encode(input(n))));
    lengths.forEach((n, i) => {
      const expected = reference.hiddenStates(input(n)).flatMap((row) => [...row]);
      assert.equal(answers[i].length, expected.length);
      const worst = expected.reduce((most, x, at) => Math.max(most, Math.abs(x - answers[i][at])), 0);
      assert.ok(worst < TOLERANCE, `${n} tokens on ${threads} threads: ${worst}`);
    });
    assert.equal(engine.stats().kvBlocksUsed, 0);
  } finally {
    await engine.close();
  }
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn });
}

for (const threads of [1, 2]) {
  test(`encode() equals the plain forward on ${threads} thread(s), also past a prompt chunk`, () =>
    compare(ENCODER, threads, [1, 2, 9, 50, 300]));
}

test("encode() with biases on some layers only, grouped heads and a gate", () =>
  compare(
    {
      ...ENCODER,
      attention: { ...ENCODER.attention, kvHeads: 1 },
      mlp: { intermediateSize: 54, activation: "gelu_tanh", gated: true },
      biases: ["q", "v", "up"],
    },
    2,
    [17],
  ));

test("an encoder generates nothing, and reads no more tokens than it has positions", async () => {
  const engine = await loadEngine(packDense(randomCheckpoint(ENCODER), { values: "int8" }), { threads: 1 });
  try {
    assert.equal(engine.contextLength, 1000);
    await assert.rejects(engine.encode(input(1001)), { code: "context_length_exceeded" });
    await assert.rejects(engine.logits([1]), { code: "invalid_request", message: /encoder/ });
    await assert.rejects(engine.score([1, 2]), { code: "invalid_request" });
    const request = { promptIds: [1], maxTokens: 1, stopIds: [], sampling: GREEDY, logprobs: null };
    await assert.rejects(engine.generate(request)[Symbol.asyncIterator]().next(), {
      code: "invalid_request",
    });
    assert.equal((await engine.encode(input(1000))).length, 1000 * 42);
  } finally {
    await engine.close();
  }
});

/** 16 patches and CLS at its own size; others are interpolated. */
const IMAGES: ModelSpec = {
  ...ENCODER,
  vocabSize: 0,
  contextLength: 40,
  encoder: {
    patches: {
      height: 16,
      width: 16,
      size: 4,
      bias: true,
      distillation: false,
      registers: 0,
      antialias: false,
    },
    tokenTypes: 0,
    embeddingNorm: false,
    pooling: "cls",
    pooler: null,
    normsPooled: false,
    projection: null,
    unitLength: true,
    classifier: "cls",
    labels: ["a", "b", "c"],
  },
};
const image = (height: number, width: number): Pixels => ({
  height,
  width,
  data: Float32Array.from({ length: 3 * height * width }, (_, i) => Math.sin(i)),
});

test("an encoder of images reads sizes up to its limit, and says what it cannot read", async () => {
  const model = packDense(randomCheckpoint(IMAGES), { values: "int8" });
  const engine = await loadEngine(model, { threads: 2 });
  const encoder = encoderOf(engine, { spec: IMAGES, imageProcessor: null })!;
  try {
    assert.deepEqual([encoder.reads, encoder.labels], ["images", ["a", "b", "c"]]);
    for (const [height, width, patches] of [[16, 16, 16], [4, 4, 1], [19, 23, 20], [12, 52, 39]]) {
      const { states, pooled, logits } = await encoder.run(image(height, width));
      assert.equal(states.length, (patches + 1) * 42);
      assert.ok(Math.abs(Math.hypot(...pooled) - 1) < 1e-6);
      assert.equal(logits?.length, 3);
    }
    await assert.rejects(encoder.run(image(16, 40)), {
      code: "context_length_exceeded",
      message: /41 .* takes 40/,
    });
    await assert.rejects(encoder.run(image(3, 40)), { code: "invalid_request", message: /patches of 4 x 4/ });
    await assert.rejects(encoder.run({ ...image(16, 16), width: 20 }), {
      message: /has 768 values, must have 960/,
    });
    await assert.rejects(encoder.run({ ids: [1] }), {
      code: "invalid_request",
      message: /reads images, not text/,
    });
    await assert.rejects(engine.encode([0]), { code: "invalid_request", message: /reads images, not text/ });
  } finally {
    await engine.close();
  }
});

test("an encoder of text reads no images", async () => {
  const engine = await loadEngine(packDense(randomCheckpoint(ENCODER), { values: "int8" }), { threads: 1 });
  const encoder = encoderOf(engine, { spec: ENCODER, imageProcessor: null })!;
  await assert.rejects(encoder.run(image(16, 16)), {
    code: "invalid_request",
    message: /reads text, not images/,
  });
  const { pooled, logits, states } = await encoder.run({ ids: [1, 2, 3] });
  assert.deepEqual([[...pooled], logits, encoder.labels], [[...states.subarray(0, 42)], null, null]);
  await engine.close();
});

test("a decoder encodes nothing", async () => {
  const spec = { ...ENCODER, attention: { ...ENCODER.attention, causal: true } };
  const engine = await loadEngine(packDense(randomCheckpoint(spec), { values: "int8" }), { threads: 1 });
  await assert.rejects(engine.encode([1]), { code: "invalid_request", message: /decoder/ });
  await engine.close();
});

Deno.test("layers of one input stay one stream when all of them have a bias", () => {
  const linears = buildPlan(packDense(randomCheckpoint(ENCODER), { values: "int8" })).body
    .filter((op) => op.op === "linear");
  assert.deepEqual(linears[0].weights, ["block.0.q.w", "block.0.k.w", "block.0.v.w"]);
  assert.deepEqual(linears[0].biases, ["block.0.q.bias", "block.0.k.bias", "block.0.v.bias"]);
  assert.equal(linears.length, 4 * ENCODER.blocks);
});
