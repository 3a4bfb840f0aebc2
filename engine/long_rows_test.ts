/** Rows that are stored in parts (kernels/layout.ts): tables, dense layers and windows, against the plain forward. */
import assert from "node:assert/strict";
import { packedBytes, PART_CHUNKS, type Shape2 } from "../kernels/layout.ts";
import { assignWindows, packWindows } from "../kernels/packers.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import { packDense } from "../models/pack_dense.ts";
import type { PackedModel } from "../models/packed.ts";
import type { ModelSpec } from "../models/spec.ts";
import { randomCheckpoint } from "../models/testing/random_checkpoint.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { loadEngine } from "./engine.ts";

/** Two parts of the hidden size, three of the MLP. */
const SPEC: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 40,
  hiddenSize: 2112,
  blocks: 1,
  contextLength: 100,
  norm: { kind: "layernorm", eps: 1e-6 },
  attention: { heads: 33, kvHeads: 33, headDim: 64, causal: false, scale: 0.125, window: null, rope: null },
  mlp: { intermediateSize: 4700, activation: "gelu", gated: false },
  tiedEmbeddings: true,
  biases: ["down"],
  bosId: null,
  eosIds: [],
};
/** Weights in 7 bits, inputs in 8, KV cache in 8: errors of a half to one percent each, of values of size 1. */
const TOLERANCE = 0.03;

/** `model` with `down` as windows of which half is kept; `W` becomes what is kept. */
function withSparseDown(model: PackedModel, W: Float32Array, shape: Shape2): PackedModel {
  const { blockChunks } = model;
  const format = { kind: "windows", windows: 8, bits: 8, blockChunks } as const;
  const mask = assignWindows(W.map(Math.abs), shape, format);
  W.forEach((w, i) => W[i] = mask[i] ? w : 0);
  const bytes = packWindows(W, shape, format);
  const sparse: TensorEntry = { name: "block.0.down.s", format, shape, offset: 0, bytes: bytes.length };
  return {
    ...model,
    tensors: model.tensors.map((t) => t.name === "block.0.down.w" ? sparse : t),
    async load(destination) {
      await model.load((t) => t.name === "block.0.down.w" ? new Uint8Array(t.bytes) : destination(t));
      destination(sparse).set(bytes);
    },
  };
}

for (const sparse of [false, true]) {
  Deno.test({
    name: `${sparse ? "windows" : "dense layers"} with long rows compute what whole rows would`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const checkpoint = randomCheckpoint(SPEC);
      const shape: Shape2 = [SPEC.hiddenSize, SPEC.mlp.intermediateSize];
      assert.ok(shape[0] > 64 * PART_CHUNKS && packedBytes({ kind: "q8" }, shape) > 0);
      const { data } = await checkpoint.read("block.0.down");
      const dense = packDense(checkpoint, { values: "int8" });
      const model = sparse ? withSparseDown(dense, data, shape) : dense;
      const reference = await ReferenceModel.load(checkpoint);
      const answers: Float32Array[][] = [];
      for (const threads of [1, 2]) {
        const engine = await loadEngine(model, { threads });
        const inputs = [[7], [1, 2, 3], Array.from({ length: 19 }, (_, i) => i * 3 % 40)];
        answers.push(await Promise.all(inputs.map((ids) => engine.encode(ids))));
        await engine.close();
        inputs.forEach((ids, i) => {
          const expected = reference.hiddenStates(ids).flatMap((row) => [...row]);
          const error = expected.reduce((sum, x, at) => sum + (x - answers.at(-1)![i][at]) ** 2, 0);
          const size = expected.reduce((sum, x) => sum + x ** 2, 0);
          assert.ok(Math.sqrt(error / size) < TOLERANCE, `${ids.length} tokens: ${Math.sqrt(error / size)}`);
        });
      }
      assert.deepEqual(answers[0], answers[1]);
    },
  });
}
