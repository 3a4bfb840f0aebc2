/** Graphs as encoders: what /v1/classify and eval ask. */
import assert from "node:assert/strict";
import type { EncoderModel } from "../../models/classifier.ts";
import { answersOf, labelsOf } from "../../models/onnx/graph_outputs.ts";
import { newMessage, type ValueInfo } from "../../models/onnx/onnx_proto.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { openModel } from "../open_model.ts";
import {
  floats,
  node,
  onnxFile,
  textClassifier,
  value,
  VOCABULARY,
} from "../../models/onnx/testing/graphs.ts";
import { imagePixels, readGraphOracles } from "./testing/graph_oracles.ts";

const TOLERANCE = 1e-4;

async function withFolder(
  files: Record<string, string>,
  run: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, from] of Object.entries(files)) {
      await Deno.copyFile(shared(`oracles/${from}`), `${folder}/${name}`);
    }
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const image = (name: string) => ({ width: 32, height: 32, data: imagePixels(name) });

oracleTest(
  "an .onnx file of a ViT is an encoder with labels and an image processor",
  "oracles/onnx",
  () =>
    withFolder({
      "vit.onnx": "onnx/vit_torchscript.onnx",
      "config.json": "vit/config.json",
      "preprocessor_config.json": "vit/preprocessor_config.json",
    }, async (folder) => {
      const { engine, encoder, tokenizer } = await openModel(`${folder}/vit.onnx`, { threads: 1 });
      try {
        assert.ok(encoder);
        assert.deepEqual([encoder.reads, encoder.labels?.[9], tokenizer], ["images", "class_9", null]);
        assert.equal(encoder.imageProcessor?.image_processor_type, "ViTImageProcessor");
        await checkImages(encoder);
        await assert.rejects(encoder.run({ ids: [1] }), {
          code: "invalid_request",
          message: /reads images, not text/,
        });
        const small = { ...image("ramp"), height: 16, data: new Float32Array(3 * 16 * 32) };
        await assert.rejects(encoder.run(small), {
          code: "invalid_request",
          message: /\[any, 3, 32, 32\], not \[1, 3, 16, 32\]/,
        });
        await assert.rejects(engine.logits([1]), { code: "invalid_request", message: /ONNX graph/ });
        assert.equal(engine.stats().stepsTotal, 3);
      } finally {
        await engine.close();
      }
      await assert.rejects(encoder.run(image("ramp")), { code: "unavailable" });
    }),
);

async function checkImages(encoder: EncoderModel): Promise<void> {
  const oracle = (await readGraphOracles()).find(({ file }) => file === "vit_torchscript.onnx")!;
  const runs = await Promise.all(["ramp", "quad", "black"].map((name) => encoder.run(image(name))));
  runs.forEach(({ logits, states, pooled }, i) => {
    const { values } = oracle.cases[i].outputs.logits;
    assert.ok(logits && values.every((v, j) => Math.abs(v - logits[j]) < TOLERANCE));
    assert.deepEqual([states.length, pooled.length], [0, 0]);
  });
}

oracleTest(
  "without config.json labels are numbered; a graph of other tensors is no encoder",
  "oracles/onnx",
  async () => {
    for (const [file, labels] of [["vit_dynamo", "LABEL_3"], ["mlp", undefined]] as const) {
      const { engine, encoder } = await openModel(shared(`oracles/onnx/${file}.onnx`).pathname, {
        threads: 1,
      });
      assert.equal(encoder?.labels?.[3], labels);
      await engine.close();
    }
  },
);

const output = (name: string, dims: (number | null)[], elemType = 1): ValueInfo =>
  newMessage("ValueInfoProto", {
    name,
    type: {
      tensorType: {
        elemType,
        shape: {
          dim: dims.map((n) => ({
            dim: n === null ? { case: undefined } : { case: "dimValue" as const, value: BigInt(n) },
          })),
        },
      },
    },
  });

Deno.test("answersOf() knows outputs by name, or by rank", () => {
  const states = output("last_hidden_state", [null, null, 8]), logits = output("logits", [null, 3]);
  const pooled = output("pooler_output", [null, 8]), other = output("output_0", [1, 2]);
  const none = { logits: null, labelCount: null, states: null, hiddenSize: null, pooled: null };
  assert.deepEqual(answersOf({ output: [states, pooled] }), {
    ...none,
    states: states.name,
    hiddenSize: 8,
    pooled: pooled.name,
  });
  assert.deepEqual(answersOf({ output: [logits, states] }), {
    ...none,
    logits: "logits",
    labelCount: 3,
    states: states.name,
    hiddenSize: 8,
  });
  assert.deepEqual(answersOf({ output: [other] }), { ...none, logits: "output_0", labelCount: 2 });
  assert.deepEqual(answersOf({ output: [output("tokens", [1, 2], 7)] }), none);
});

Deno.test("labelsOf() takes id2label only where it names every logit", () => {
  const answers = { logits: "logits", labelCount: 2, states: null, hiddenSize: null, pooled: null };
  assert.deepEqual(labelsOf({ id2label: { 1: "dog", 0: "cat" } }, answers), ["cat", "dog"]);
  assert.deepEqual(labelsOf(null, answers), ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(labelsOf({ id2label: { 0: "a", 1: "b" } }, { ...answers, labelCount: null }), ["a", "b"]);
  assert.equal(labelsOf({ id2label: { 0: "a" } }, { ...answers, logits: null }), null);
  for (const id2label of [{ 0: "cat" }, { 0: "a", 1: "b", 2: "c" }, { 1: "a", 2: "b" }, { 0: 1, 1: 2 }]) {
    assert.throws(() => labelsOf({ id2label }, answers), { code: "invalid_config" });
  }
  const claimed = { ...answers, labelCount: 2 ** 40 };
  assert.throws(() => labelsOf(null, claimed), { code: "invalid_config", message: /at most 131072/ });
});

Deno.test("a graph that answers other logits than config.json names says so", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const x = value("pixel_values", ["n", 3, 4, 4]),
      shape = newMessage("TensorProto", {
        name: "shape",
        dims: [2n],
        dataType: 7,
        rawData: new Uint8Array(BigInt64Array.of(1n, -1n).buffer),
      });
    const file = onnxFile({
      input: [x],
      initializer: [shape],
      output: [value("logits", ["n", "any"])],
      node: [node("Reshape", ["pixel_values", "shape"], "logits")],
    });
    await Deno.writeFile(`${folder}/m.onnx`, file);
    // Refused before threads are started, which nobody would end.
    await assert.rejects(openModel(`${folder}/m.onnx`, { threads: 1 }), { code: "invalid_config" });
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ id2label: { 0: "a", 1: "b" } }));
    const { engine, encoder } = await openModel(`${folder}/m.onnx`, { threads: 1 });
    try {
      await assert.rejects(encoder!.run({ width: 4, height: 4, data: new Float32Array(48) }), {
        code: "invalid_config",
        message: /answers 48 logits, config.json names 2/,
      });
    } finally {
      await engine.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a graph of token ids classifies texts, with a mask and of any length", async () => {
  const folder = await Deno.makeTempDir();
  const config = {
    vocab_size: VOCABULARY,
    max_position_embeddings: 64,
    id2label: { 0: "a", 1: "b", 2: "c" },
  };
  await Deno.writeFile(`${folder}/m.onnx`, textClassifier());
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
  const { engine, encoder, spec } = await openModel(`${folder}/m.onnx`, { threads: 1, maxWaiting: 2 });
  try {
    assert.deepEqual([encoder?.reads, encoder?.labels, spec.vocabSize, spec.contextLength], [
      "text",
      ["a", "b", "c"],
      30,
      64,
    ]);
    const [short, long] = await Promise.all([[3, 4], [3, 4, 5]].map((ids) => encoder!.run({ ids })));
    assert.equal(short.logits?.length, 3);
    assert.notDeepEqual(short.logits, long.logits);
    const flood = await Promise.allSettled(Array.from({ length: 4 }, () => encoder!.run({ ids: [1] })));
    assert.deepEqual(flood.map(({ status }) => status), ["fulfilled", "fulfilled", "fulfilled", "rejected"]);
    assert.match(String((flood[3] as PromiseRejectedResult).reason), /2 inputs wait already/);
    const many = { ids: new Array<number>(65).fill(1) };
    await assert.rejects(encoder!.run(many), { code: "context_length_exceeded" });
    await assert.rejects(encoder!.run({ ids: [] }), { code: "invalid_request" });
    await assert.rejects(encoder!.run({ ids: [VOCABULARY] }), {
      code: "invalid_request",
      message: /fails on this input/,
    });
    const image = { width: 1, height: 1, data: new Float32Array(3) };
    await assert.rejects(encoder!.run(image), { code: "invalid_request", message: /reads text, not images/ });
  } finally {
    await engine.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a graph's states are pooled as the files beside it say", async () => {
  const folder = await Deno.makeTempDir(),
    text = (name: string, json: unknown) => Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(json));
  const table = floats("embedding", [VOCABULARY, 4], (i) => Math.sin(i * i));
  const rows = new Float32Array(table.rawData.buffer),
    row = (id: number) => rows.subarray(4 * id, 4 * id + 4);
  const mean = row(3).map((v, i) => (v + row(5)[i]) / 2), length = Math.hypot(...mean);
  await Deno.writeFile(
    `${folder}/m.onnx`,
    onnxFile({
      input: [value("input_ids", ["batch", "length"], 7)],
      initializer: [table],
      output: [value("last_hidden_state", ["batch", "length", "width"])],
      node: [node("Gather", ["embedding", "input_ids"], "last_hidden_state")],
    }),
  );
  const answer = async () => {
    const { engine, encoder } = await openModel(`${folder}/m.onnx`, { threads: 1 });
    try {
      return await encoder!.run({ ids: [3, 5] });
    } finally {
      await engine.close();
    }
  };
  try {
    const plain = await answer();
    assert.deepEqual([plain.width, plain.pooled], [4, row(3)]);
    await Deno.mkdir(`${folder}/1_Pooling`);
    await text("1_Pooling/config.json", { word_embedding_dimension: 4, pooling_mode_mean_tokens: true });
    await text("modules.json", [{ type: "sentence_transformers.models.Normalize" }]);
    const { pooled } = await answer();
    assert.ok(pooled.every((v, i) => Math.abs(v - mean[i] / length) < 1e-6), `${pooled}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("an output of another type than the graph says is refused", async () => {
  const folder = await Deno.makeTempDir();
  const file = onnxFile({
    input: [value("input_ids", ["batch", "length"], 7)],
    initializer: [],
    output: [value("logits", ["batch", 2])],
    node: [node("Identity", ["input_ids"], "logits")],
  });
  try {
    await Deno.writeFile(`${folder}/m.onnx`, file);
    const { engine, encoder } = await openModel(`${folder}/m.onnx`, { threads: 1 });
    try {
      await assert.rejects(encoder!.run({ ids: [1, 2] }), {
        code: "unsupported_format",
        message: /is int64/,
      });
    } finally {
      await engine.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
