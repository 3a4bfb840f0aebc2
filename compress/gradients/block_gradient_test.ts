/** Blocks of every kind that a spec can express: gradients against central differences in f64, and as ONNX Runtime runs them. */
import assert from "node:assert/strict";
import type { LinearKind, ModelSpec } from "../../models/spec.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { QUERY_BLOCK } from "../forward/block_graph.ts";
import { LinalgRuntime, type Tensor } from "../linalg/runtime.ts";
import { blockGradientGraph } from "./block_gradient.ts";
import { blockCase, blockCheck } from "./testing/block_case.ts";
import { checkGradient, checkGradientsTogether } from "./testing/check_gradient.ts";
import { interpret, type Values } from "./testing/interpreter.ts";

const ROPE = { dims: 4, inverseFrequencies: [1, 0.1], attentionFactor: 1 };
const LLAMA: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 8,
  hiddenSize: 6,
  blocks: 1,
  contextLength: 256,
  norm: { kind: "rmsnorm", eps: 1e-5 },
  attention: { heads: 4, kvHeads: 2, headDim: 4, causal: true, scale: 0.4, window: null, rope: ROPE },
  mlp: { intermediateSize: 10, activation: "silu", gated: true },
  tiedEmbeddings: true,
  biases: [],
  bosId: null,
  eosIds: [],
};
const BIASES: readonly LinearKind[] = ["q", "k", "v", "o", "up", "down"];

interface Change extends Partial<Omit<ModelSpec, "attention" | "mlp" | "norm">> {
  readonly attention?: Partial<ModelSpec["attention"]>;
  readonly mlp?: Partial<ModelSpec["mlp"]>;
  readonly norm?: Partial<ModelSpec["norm"]>;
}

const changed = ({ attention, mlp, norm, ...rest }: Change): ModelSpec => ({
  ...LLAMA,
  ...rest,
  attention: { ...LLAMA.attention, ...attention },
  mlp: { ...LLAMA.mlp, ...mlp },
  norm: { ...LLAMA.norm, ...norm },
});

const PLAIN_MLP = { gated: false, activation: "gelu" } as const;
const SPECS: Readonly<Record<string, ModelSpec>> = {
  "as llama": LLAMA,
  "with a window, a soft cap and norms of heads": changed({
    attention: { window: 3, softCap: 2, headNorms: true },
  }),
  "with a rotation of some dimensions, in parallel, of LayerNorm": changed({
    attention: { headDim: 6, kvHeads: 4 },
    norm: { kind: "layernorm" },
    mlp: PLAIN_MLP,
    parallel: true,
    biases: BIASES,
  }),
  "with norms around, tanh gelu": changed({
    norm: { placement: "around" },
    mlp: { activation: "gelu_tanh" },
  }),
  "with norms after, relu": changed({
    attention: { rope: null },
    norm: { placement: "after", kind: "layernorm" },
    mlp: { ...PLAIN_MLP, activation: "relu" },
    biases: BIASES,
  }),
  "of an encoder": changed({
    attention: { rope: null, causal: false, kvHeads: 4 },
    norm: { kind: "layernorm" },
    mlp: { ...PLAIN_MLP, activation: "quick_gelu" },
    biases: BIASES,
  }),
  "with two of three experts": changed({ mlp: { experts: { count: 3, perToken: 2 } } }),
  "with one of four experts": changed({ mlp: { experts: { count: 4, perToken: 1 } } }),
};

const caseOf = (spec: ModelSpec, sequences: number, length: number) =>
  blockCase(randomCheckpoint(spec), { sequences, length });

const f32 = ({ data, shape }: Values): Tensor => ({ data: Float32Array.from(data), shape });

for (const [what, spec] of Object.entries(SPECS)) {
  Deno.test(`the gradient of a block ${what}`, async () => {
    const block = await caseOf(spec, 2, 4), wanted = Object.keys(block.options.weights);
    const check = blockCheck(block);
    assert.deepEqual(Object.keys(check.gradients).sort(), ["x", ...wanted].sort());
    checkGradient(check);
  });
}

for (const [what, spec] of Object.entries(SPECS)) {
  Deno.test(`ONNX Runtime computes the gradient of a block ${what}`, async () => {
    const { options, inputs } = await caseOf(spec, 2, 5), wanted = Object.keys(options.weights);
    const graph = blockGradientGraph({ ...options, wanted, inputGradient: true, output: true });
    const exact = interpret(graph, inputs), linalg = await LinalgRuntime.create();
    const given = Object.fromEntries(Object.entries(inputs).map(([name, v]) => [name, f32(v)]));
    const outputs = Object.fromEntries(
      Object.entries(exact).map(([name, { data, shape }]) => [name, f32({ data: data.map(() => 0), shape })]),
    );
    await linalg.run("gradient", () => graph, given, outputs);
    await linalg.close();
    for (const [name, { data }] of Object.entries(outputs)) {
      const size = Math.max(0.01, Math.hypot(...exact[name].data)); // k's bias changes nothing without rope
      const off = Math.hypot(...data.map((v, i) => v - exact[name].data[i])) / size;
      assert.ok(off < 1e-4, `${name}: off by ${off}`);
    }
  });
}

Deno.test("the gradient of attention in several blocks of queries", async () => {
  const attention = { heads: 2, kvHeads: 1, headDim: 4 };
  const spec = changed({ hiddenSize: 4, attention, mlp: { intermediateSize: 4 } });
  checkGradientsTogether(blockCheck(await caseOf(spec, 1, QUERY_BLOCK + 3), ["q", "k", "v"]));
});

Deno.test("what is not wanted is not computed", async () => {
  const { options } = await caseOf(LLAMA, 1, 4), weights = Object.keys(options.weights);
  const steps = (wanted: readonly string[], inputGradient: boolean) =>
    blockGradientGraph({ ...options, wanted, inputGradient }).steps.filter(({ op }) => op === "Gemm").length;
  const all = steps(weights, true);
  // The forward pass without down: 6; of 7 layers the gradients of inputs and weights; of 2 norms the sums of columns.
  assert.equal(all, 6 + 14 + 2);
  assert.equal(steps(weights, false), all); // attnNorm needs what x would
  assert.equal(steps(weights.filter((name) => name !== "attnNorm"), false), all - 4);
  assert.equal(steps(["down"], false), 6 + 1);
  assert.equal(steps([], true), 6 + 7);
  assert.throws(() => steps(["absent"], true), /no weight "absent"/);
});
