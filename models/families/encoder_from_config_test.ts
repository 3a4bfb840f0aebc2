import assert from "node:assert/strict";
import { specFromConfig } from "./spec_from_config.ts";

const VIT = {
  model_type: "vit",
  architectures: ["ViTForImageClassification"],
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  image_size: 32,
  patch_size: 8,
  id2label: { 1: "dog", 0: "cat" },
};

Deno.test("labels stand in the order of their numbers", () => {
  assert.deepEqual(specFromConfig(VIT).encoder?.labels, ["cat", "dog"]);
  const { id2label: _, ...unnamed } = VIT;
  assert.deepEqual(specFromConfig(unnamed).encoder?.labels, ["LABEL_0", "LABEL_1"]);
  assert.deepEqual(specFromConfig({ ...VIT, architectures: ["ViTModel"] }).encoder?.labels, []);
  assert.throws(() => specFromConfig({ ...VIT, id2label: { 0: "cat", 2: "dog" } }), {
    code: "invalid_config",
    message: /no label 1/,
  });
});

Deno.test("images may have 2048 tokens, or as many as the model's own size", () => {
  assert.equal(specFromConfig(VIT).contextLength, 2048);
  assert.equal(specFromConfig({ ...VIT, image_size: [48 * 8, 64 * 8] }).contextLength, 48 * 64 + 1);
  for (const image_size of [7, 520, [32, 4]]) {
    assert.throws(() => specFromConfig({ ...VIT, image_size, patch_size: 8 }), {
      code: "invalid_config",
      param: "image_size",
    });
  }
});

Deno.test("an encoder of text pools as the file beside its config says, unless it is a classifier", () => {
  const { image_size: _, patch_size: __, ...sizes } = VIT;
  const bert = { ...sizes, model_type: "bert", architectures: ["BertModel"], vocab_size: 100 };
  const cls = { pooling: "cls", unitLength: true } as const;
  const poolingOf = (config: Record<string, unknown>, pooling: typeof cls | null) => {
    const { encoder, attention, learnedPositions } = specFromConfig(config, { pooling });
    assert.deepEqual([attention.causal, learnedPositions], [false, true]);
    return [encoder?.pooling, encoder?.pooler, encoder?.unitLength];
  };
  assert.deepEqual(poolingOf(bert, null), ["mean", null, false]);
  assert.deepEqual(poolingOf(bert, cls), ["cls", null, true]);
  const classifier = { ...bert, architectures: ["BertForSequenceClassification"] };
  assert.deepEqual(poolingOf(classifier, null), ["pooler", "tanh", false]);
  assert.throws(() => specFromConfig({ ...bert, vocab_size: 0 }), { code: "invalid_config" });
});

Deno.test("the image encoder of a whole CLIP is read from its part of the config", () => {
  const { model_type: _, architectures: __, id2label: ___, ...vision_config } = VIT;
  const clip = { model_type: "clip", architectures: ["CLIPModel"], projection_dim: 48, vision_config };
  const { hiddenSize, blocks, encoder } = specFromConfig(clip);
  assert.deepEqual([hiddenSize, blocks, encoder?.projection, encoder?.normsPooled], [64, 2, 48, true]);
});
