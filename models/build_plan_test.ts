import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import type { TensorEntry } from "./formats/artifact_header.ts";
import type { EncoderSpec } from "./encoder_spec.ts";
import { openCheckpoint } from "./open.ts";
import { packDense } from "./pack_dense.ts";
import type { PackedModel } from "./packed.ts";
import { buildPlan } from "./build_plan.ts";
import { randomCheckpoint } from "./testing/random_checkpoint.ts";
import { SMALL_DECODER } from "./testing/small_spec.ts";

const checkpoint = await openCheckpoint(new URL("./default/", import.meta.url).pathname);
const dense = packDense(checkpoint, { values: "int8" });
checkpoint.close();

/** The bundled model with one tensor changed, removed (null) or added. */
function changed(name: string, change: (t: TensorEntry) => TensorEntry | null): PackedModel {
  return { ...dense, tensors: dense.tensors.flatMap((t) => t.name === name ? change(t) ?? [] : [t]) };
}
const invalid = (pattern: RegExp) => (e: unknown) =>
  e instanceof OatmillError && e.code === "invalid_artifact" && pattern.test(e.message);

Deno.test("buildPlan() runs the layers of one input as one stream", () => {
  const plan = buildPlan(dense);
  const linears = plan.body.filter((op) => op.op === "linear");
  assert.deepEqual(linears[0].weights, ["block.0.q.w", "block.0.k.w", "block.0.v.w"]);
  assert.equal(linears.length, 4 * dense.spec.blocks);
  assert.equal(plan.buffers.qkv, 256 + 128 + 128);
});

Deno.test("buildPlan() takes layers of different formats apart and keeps their columns side by side", () => {
  const plan = buildPlan(changed("block.0.k.w", (t) => ({ ...t, format: { kind: "q4" } })));
  const first = plan.body.filter((op) => op.op === "linear").slice(0, 3);
  assert.deepEqual(first.map((op) => op.weights), [["block.0.q.w"], ["block.0.k.w"], ["block.0.v.w"]]);
  assert.deepEqual(first.map((op) => op.out.column), [0, 256, 384]);
});

Deno.test("buildPlan() lets adapters add to every layer of a decoder's blocks, but not to experts'", () => {
  const kinds = ["q", "k", "v", "o", "gate", "up", "down"];
  const namesOf = (model: PackedModel) => buildPlan(model).adapters.layers.map(({ name }) => name);
  const { blocks } = dense.spec;
  const all = Array.from({ length: blocks }, (_, i) => kinds.map((kind) => `block.${i}.${kind}`)).flat();
  assert.deepEqual(namesOf(dense), all);
  const experts = { count: 2, perToken: 1 };
  const mixture = { ...SMALL_DECODER, blocks: 1, mlp: { ...SMALL_DECODER.mlp, experts } };
  const attention = kinds.slice(0, 4).map((kind) => `block.0.${kind}`);
  assert.deepEqual(namesOf(packDense(randomCheckpoint(mixture), { values: "f32" })), attention);
});

Deno.test("buildPlan() refuses tensors that are missing or have another shape than the spec says", () => {
  const cases: [PackedModel, RegExp][] = [
    [changed("block.2.up.w", () => null), /"block.2.up.s" is missing/],
    [
      changed("block.2.up.w", (t) => ({ ...t, shape: [t.shape[0] + 4, t.shape[1]] })),
      /must be a packed layer \[704,256\]/,
    ],
    [changed("block.1.attnNorm", (t) => ({ ...t, shape: [8] })), /must be a vector of 256/],
    [changed("finalNorm", () => null), /norm "finalNorm" is incomplete/],
    [changed("embedding", (t) => ({ ...t, format: { kind: "q4" } })), /must be f32 or q8/],
    [
      changed(
        "block.0.q.w",
        (t) => ({ ...t, format: { kind: "windows", windows: 8, bits: 8, blockChunks: 3 } }),
      ),
      /blocks of 3 chunks, the model 2/,
    ],
    [
      {
        ...dense,
        tensors: [...dense.tensors, { ...dense.tensors[0], name: "block.0.q.v", shape: [8, 256] }],
      },
      /"block.0.q.u" is missing/,
    ],
  ];
  for (const [model, pattern] of cases) assert.throws(() => buildPlan(model), invalid(pattern));
});

Deno.test("buildPlan() refuses an encoder whose two ends are not as its spec says", () => {
  const { spec } = dense, { attention } = spec;
  const encoder: EncoderSpec = {
    patches: { height: 8, width: 8, size: 4, bias: true, distillation: true, registers: 2, antialias: false },
    ...{
      tokenTypes: 0,
      embeddingNorm: true,
      pooling: "cls",
      pooler: null,
      normsPooled: false,
      projection: null,
    },
    ...{ unitLength: false, classifier: "cls_and_distillation", labels: ["a", "b"] },
  };
  const images = {
    ...spec,
    blocks: 1,
    vocabSize: 0,
    attention: { ...attention, causal: false, window: null },
    encoder,
  };
  const model = packDense(randomCheckpoint(images), { values: "int8" });
  assert.deepEqual(buildPlan(model).output, { buffer: "states", cols: spec.hiddenSize });
  const withTensor = (name: string, change: (t: TensorEntry) => TensorEntry | null): PackedModel => ({
    ...model,
    tensors: model.tensors.flatMap((t) => t.name === name ? change(t) ?? [] : [t]),
  });
  const plain = ["patch.bias", "classToken", "distillationToken", "registers", "positions", "classifier"];
  for (const name of [...plain, "classifier.bias", "distillationClassifier", "patch", "embeddingNorm"]) {
    assert.throws(() => buildPlan(withTensor(name, () => null)), invalid(new RegExp(`"${name}" is`)));
    const longer = withTensor(name, (t) => ({ ...t, shape: [t.shape[0] + 1, ...t.shape.slice(1)] }));
    assert.throws(() => buildPlan(longer), invalid(new RegExp(`"${name}" is .* must be`)));
  }
});
