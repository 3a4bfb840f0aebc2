/** ViT: images as patches behind a CLS token, layernorm before attention and MLP. DeiT without distillation is one too. */
import type { Family } from "./family.ts";
import { VIT_NAMES } from "./names.ts";

export const vit: Family = {
  name: "vit",
  models: "ViT, DeiT without distillation, DINO",
  modelTypes: ["vit"],
  architectures: ["ViTForImageClassification", "ViTModel"],
  norm: "layernorm",
  gated: false,
  positions: "learned",
  window: "never",
  encoder: { reads: "images", pooling: "cls", classifiers: { ViTForImageClassification: "cls" } },
  biases: { q: "qkv_bias", k: "qkv_bias", v: "qkv_bias", o: true, up: true, down: true },
  tiedByDefault: true,
  fields: { rms_norm_eps: "layer_norm_eps" },
  defaults: {
    vocab_size: 0,
    image_size: 224,
    patch_size: 16,
    qkv_bias: true,
    hidden_act: "gelu",
    rms_norm_eps: 1e-12,
  },
  requires: { num_channels: 3 },
  names: { ...VIT_NAMES, prefixes: ["vit.", ""] },
  gguf: null,
};
