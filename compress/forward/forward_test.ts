import assert from "node:assert/strict";
import { type InputName, inputNames, type ModelSpec } from "../../models/spec.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { blockStatistics, shared, toShared } from "../statistics.ts";
import { blockWeights, inputWidths } from "./block_graph.ts";
import { type BlockJob, runBlock } from "./block_job.ts";
import { runBlockOver } from "./dense_forward.ts";
import { logAddExp, runHead } from "./head_job.ts";

/** f32 against f64 through one block of values around 1. */
const TOLERANCE = 2e-4;

const LLAMA: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 50,
  hiddenSize: 24,
  blocks: 1,
  contextLength: 64,
  norm: { kind: "rmsnorm", eps: 1e-5 },
  attention: {
    heads: 4,
    kvHeads: 2,
    headDim: 8,
    causal: true,
    scale: 0.3,
    window: null,
    rope: { dims: 8, inverseFrequencies: [1, 0.3, 0.1, 0.02], attentionFactor: 1 },
  },
  mlp: { intermediateSize: 20, activation: "silu", gated: true },
  tiedEmbeddings: true,
  biases: [],
  bosId: null,
  eosIds: [],
};

/** Everything the first one is not: layernorm, biases, a window, partial rope, no gate. */
const OTHER: ModelSpec = {
  ...LLAMA,
  norm: { kind: "layernorm", eps: 1e-3 },
  attention: {
    ...LLAMA.attention,
    window: 5,
    rope: { ...LLAMA.attention.rope!, dims: 4, attentionFactor: 1.1 },
  },
  mlp: { intermediateSize: 20, activation: "gelu_tanh", gated: false },
  biases: ["q", "k", "v", "o", "up", "down"],
};

const ENCODER: ModelSpec = {
  ...OTHER,
  attention: { ...OTHER.attention, causal: false, window: null, rope: null },
};

type Rows = number[][];

/** The block in plain f64 loops; also returns what each linear layer reads. */
function reference(spec: ModelSpec, weights: BlockJob["weights"], x: Rows) {
  const { heads, kvHeads, headDim, scale, window, rope, causal } = spec.attention;
  const vector = (name: string) => weights[name] ? Array.from(weights[name].data) : null;
  const linear = (name: string, input: Rows): Rows => {
    const { data, shape: [dOut, dIn] } = weights[name], bias = vector(`${name}.bias`);
    return input.map((row) =>
      Array.from(
        { length: dOut },
        (_, o) => row.reduce((sum, v, i) => sum + v * data[o * dIn + i], bias?.[o] ?? 0),
      )
    );
  };
  const norm = (name: string, input: Rows): Rows =>
    input.map((row) => {
      const mean = spec.norm.kind === "layernorm" ? row.reduce((a, b) => a + b) / row.length : 0;
      const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / row.length;
      const weight = vector(name)!, bias = vector(`${name}.bias`);
      return row.map((v, j) =>
        (v - mean) / Math.sqrt(variance + spec.norm.eps) * weight[j] + (bias?.[j] ?? 0)
      );
    });
  const rotate = (input: Rows): Rows =>
    input.map((row, t) => {
      if (!rope) return row;
      const out = [...row], half = rope.dims / 2;
      for (let at = 0; at < row.length; at += headDim) {
        for (let i = 0; i < half; i++) {
          const angle = t * rope.inverseFrequencies[i], f = rope.attentionFactor;
          const a = row[at + i], b = row[at + i + half];
          out[at + i] = f * (a * Math.cos(angle) - b * Math.sin(angle));
          out[at + i + half] = f * (b * Math.cos(angle) + a * Math.sin(angle));
        }
      }
      return out;
    });
  const activate = (v: number) =>
    spec.mlp.activation === "silu"
      ? v / (1 + Math.exp(-v))
      : 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));

  const attn = norm("attnNorm", x);
  const q = rotate(linear("q", attn)), k = rotate(linear("k", attn)), v = linear("v", attn);
  const o = x.map((_, t) => {
    const out: number[] = [];
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h / (heads / kvHeads)) * headDim;
      const seen = [...Array(causal ? t + 1 : x.length).keys()].filter((s) =>
        window === null || t - s < window
      );
      const scores = seen.map((s) => {
        let sum = 0;
        for (let i = 0; i < headDim; i++) sum += q[t][h * headDim + i] * k[s][kv + i];
        return Math.exp(sum * scale);
      });
      const total = scores.reduce((a, b) => a + b);
      for (let i = 0; i < headDim; i++) {
        out.push(seen.reduce((sum, s, n) => sum + scores[n] / total * v[s][kv + i], 0));
      }
    }
    return out;
  });
  const middle = linear("o", o).map((row, t) => row.map((value, j) => value + x[t][j]));
  const mlp = norm("mlpNorm", middle);
  const up = linear("up", mlp);
  const gate = spec.mlp.gated ? linear("gate", mlp) : null;
  const down = up.map((row, t) => row.map((u, j) => gate ? activate(gate[t][j]) * u : activate(u)));
  const y = linear("down", down).map((row, t) => row.map((value, j) => value + middle[t][j]));
  return { y, inputs: { attn, o, mlp, down } as Record<InputName, Rows> };
}

function randomWeights(spec: ModelSpec): BlockJob["weights"] {
  const random = seededRandom(1);
  const has = (name: string) =>
    name.endsWith("Norm.bias")
      ? spec.norm.kind === "layernorm"
      : spec.biases.some((b) => name === `${b}.bias`);
  return Object.fromEntries(
    Object.entries(blockWeights(spec, has)).map(([name, shape]) => {
      const data = shared(shape.reduce((a, b) => a * b, 1));
      for (let i = 0; i < data.length; i++) data[i] = random.normal() / Math.sqrt(shape[1] ?? 1);
      return [name, { data, shape }];
    }),
  );
}

function assertClose(actual: ArrayLike<number>, expected: readonly number[]): void {
  for (let i = 0; i < expected.length; i++) {
    const bound = TOLERANCE * Math.max(1, Math.abs(expected[i]));
    assert.ok(Math.abs(actual[i] - expected[i]) < bound, `${i}: ${actual[i]} is not ${expected[i]}`);
  }
}

for (const [name, spec] of Object.entries({ LLAMA, OTHER, ENCODER })) {
  Deno.test(`runBlock() agrees with plain loops: ${name}`, async () => {
    const linalg = await LinalgRuntime.create();
    const length = 140, sequences = 3, n = spec.hiddenSize; // two query blocks
    const weights = randomWeights(spec), random = seededRandom(2);
    const x = shared(sequences * length * n);
    for (let i = 0; i < x.length; i++) x[i] = random.normal();
    const rows = (s: number): Rows =>
      Array.from(
        { length },
        (_, t) => Array.from(x.subarray((s * length + t) * n, (s * length + t + 1) * n)),
      );
    const expected = [0, 1, 2].map((s) => reference(spec, weights, rows(s)));
    const job: BlockJob = {
      kind: "block",
      spec,
      weights,
      x,
      length,
      from: 0,
      to: sequences,
      collect: true,
      momentSequences: 2,
      write: true,
      products: "f32",
    };
    const sums = await runBlock(job, linalg);
    assertClose(x, expected.flatMap(({ y }) => y.flat()));

    const copied = Object.entries(sums.moments).map(([name, H]) => [name, toShared(H)]);
    const copy = { ...sums, moments: Object.fromEntries(copied) };
    const statistics = blockStatistics([sums], { sink: false }),
      withSink = blockStatistics([copy], { sink: true });
    for (const input of inputNames(spec)) {
      const dIn = inputWidths(spec)[input];
      const all = expected.flatMap(({ inputs }) => inputs[input]);
      const some = expected.slice(0, 2).flatMap(({ inputs }) => inputs[input]);
      const first = expected.map(({ inputs }) => inputs[input][0]);
      const moment = (of: Rows, i: number, j: number) =>
        of.reduce((sum, r) => sum + r[i] * r[j], 0) / of.length;
      const sink = (i: number, j: number) => input === "attn" ? 0.5 * moment(first, i, j) : 0;
      const indices = [...Array(dIn).keys()];
      assertClose(statistics[input].d, indices.map((j) => Math.sqrt(moment(all, j, j))));
      assertClose(withSink[input].d, indices.map((j) => Math.sqrt(moment(all, j, j) + sink(j, j))));
      assertClose(statistics[input].H!, indices.flatMap((i) => indices.map((j) => moment(some, i, j))));
      assertClose(
        withSink[input].H!,
        indices.flatMap((i) => indices.map((j) => moment(some, i, j) + sink(i, j))),
      );
    }
    await linalg.close();
  });
}

for (const [name, spec] of Object.entries({ LLAMA, OTHER, ENCODER })) {
  Deno.test(`runBlock() in int8 is near f32: ${name}`, async () => {
    const linalg = await LinalgRuntime.create();
    const length = 140, sequences = 6, n = spec.hiddenSize, weights = randomWeights(spec);
    const run = async (products: BlockJob["products"]) => {
      const random = seededRandom(2), x = shared(sequences * length * n);
      for (let i = 0; i < x.length; i++) x[i] = random.normal() * (Math.floor(i / n) % length === 0 ? 50 : 1);
      const job = { spec, weights, x, length, from: 0, to: sequences, momentSequences: 4, collect: true };
      const sums = await runBlock({ kind: "block", ...job, write: true, products }, linalg);
      return { x, sums, statistics: blockStatistics([sums], { sink: false }) };
    };
    const exact = await run("f32"), coded = await run("int8");
    assert.ok(distance(coded.x, exact.x) < 0.02, `${distance(coded.x, exact.x)}`);
    assert.deepEqual(coded.sums.tokens, exact.sums.tokens);
    assert.deepEqual(coded.sums.momentTokens, exact.sums.momentTokens);
    for (const input of inputNames(spec)) {
      const a = coded.statistics[input], b = exact.statistics[input];
      assert.ok(distance(a.d, b.d) < 0.02, `${input} d ${distance(a.d, b.d)}`);
      assert.ok(distance(a.H!, b.H!) < 0.06, `${input} H ${distance(a.H!, b.H!)}`);
    }
    await linalg.close();
  });
}

/** ||a - b|| / ||b|| */
function distance(a: Float32Array, b: Float32Array): number {
  let difference = 0, size = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(difference / size);
}

Deno.test("blockStatistics() of a wide input is symmetric (its moments come in panels)", async () => {
  const linalg = await LinalgRuntime.create();
  const spec: ModelSpec = { ...LLAMA, mlp: { ...LLAMA.mlp, intermediateSize: 600 } };
  const x = shared(32 * spec.hiddenSize), random = seededRandom(3);
  for (let i = 0; i < x.length; i++) x[i] = random.normal();
  const weights = randomWeights(spec);
  const job = {
    kind: "block",
    spec,
    weights,
    x,
    length: 16,
    from: 0,
    to: 2,
    collect: true,
    write: false,
    products: "f32",
  } as const;
  const { H } =
    blockStatistics([await runBlock({ ...job, momentSequences: 2 }, linalg)], { sink: false }).down;
  for (let i = 0; i < 600; i++) for (let j = 0; j < i; j++) assert.equal(H![i * 600 + j], H![j * 600 + i]);
  assert.ok(H![599 * 600] !== 0);
  await linalg.close();
});

Deno.test("runBlockOver() does not depend on how many workers share the sequences", async () => {
  const linalg = await LinalgRuntime.create();
  const weights = randomWeights(LLAMA), length = 16, sequences = 8, size = length * LLAMA.hiddenSize;
  const over = async (threads: number, momentSequences: number) => {
    const random = seededRandom(5), data = shared(sequences * size);
    for (let i = 0; i < data.length; i++) data[i] = random.normal();
    const run = (job: BlockJob) => {
      assert.ok(
        job.from + job.momentSequences <= job.to,
        `${job.momentSequences} from ${job.from} to ${job.to}`,
      );
      return runBlock(job, linalg);
    };
    const pool = { concurrent: () => threads, run } as unknown as LinalgPool;
    const checkpoint = { spec: LLAMA } as Checkpoint;
    const options = { block: 0, checkpoint, pool, collect: true, momentSequences, write: true, sink: true };
    const statistics = await runBlockOver({ values: data, sequences, length }, weights, options);
    return { data, statistics: statistics! };
  };
  for (const [threads, moments] of [[5, 7], [3, 1], [8, 2]]) {
    const { data, statistics } = await over(threads, moments), one = await over(1, moments);
    assertClose(data, [...one.data]);
    for (const input of inputNames(LLAMA)) {
      assertClose(statistics[input].d, [...one.statistics[input].d]);
      assert.ok(statistics[input].H!.every(Number.isFinite));
      assert.equal(statistics[input].H!.length, inputWidths(LLAMA)[input] ** 2);
    }
  }
  await linalg.close();
});

Deno.test("runHead() sums exponentials over any range of the vocabulary, large logits too", async () => {
  const linalg = await LinalgRuntime.create();
  const width = 4, tokens = 3, vocab = 9, random = seededRandom(4);
  const hidden = shared(tokens * width), head = shared(vocab * width);
  for (let i = 0; i < hidden.length; i++) hidden[i] = 20 * random.normal();
  for (let i = 0; i < head.length; i++) head[i] = 5 * random.normal();
  const job = { kind: "head", hidden, head, width } as const;
  const a = await runHead({ ...job, from: 0, to: 4 }, linalg),
    b = await runHead({ ...job, from: 4, to: 9 }, linalg);
  const expected = Array.from({ length: tokens }, (_, t) => {
    const logits = Array.from({ length: vocab }, (_, v) => {
      let sum = 0;
      for (let j = 0; j < width; j++) sum += hidden[t * width + j] * head[v * width + j];
      return sum;
    });
    return logits.reduce(logAddExp);
  });
  assertClose(a.map((value, t) => logAddExp(value, b[t])), expected);
  await linalg.close();
});
