/** DINOv2: a ViT with layer scale, positions for any size, and in the largest a gated MLP; also with register tokens. */
import type { Family } from "./family.ts";
import { VIT_NAMES } from "./names.ts";

const LINEAR = {
  q: "attention.attention.query",
  k: "attention.attention.key",
  v: "attention.attention.value",
  o: "attention.output.dense",
} as const;
const GATE_UP = { tensor: "mlp.weights_in", parts: ["gate", "up"] } as const;

const names: Family["names"] = {
  ...VIT_NAMES,
  prefixes: ["dinov2.", ""],
  norms: { attnNorm: "norm1", mlpNorm: "norm2" },
  linear: { ...LINEAR, up: "mlp.fc1", down: "mlp.fc2" },
  layerScale: { o: "layer_scale1.lambda1", down: "layer_scale2.lambda1" },
};

export const dinov2: Family = {
  name: "dinov2",
  models: "DINOv2",
  modelTypes: ["dinov2"],
  architectures: ["Dinov2ForImageClassification", "Dinov2Model"],
  norm: "layernorm",
  gated: false,
  positions: "learned",
  window: "never",
  encoder: {
    reads: "images",
    pooling: "cls",
    classifiers: {
      Dinov2ForImageClassification: "cls_and_mean_of_patches",
      Dinov2WithRegistersForImageClassification: "cls_and_mean_of_patches",
    },
  },
  biases: { q: "qkv_bias", k: "qkv_bias", v: "qkv_bias", o: true, gate: true, up: true, down: true },
  tiedByDefault: true,
  fields: { rms_norm_eps: "layer_norm_eps" },
  defaults: {
    vocab_size: 0,
    image_size: 224,
    patch_size: 14,
    mlp_ratio: 4,
    qkv_bias: true,
    hidden_act: "gelu",
    rms_norm_eps: 1e-6,
  },
  intermediateFactor: "mlp_ratio",
  requires: { num_channels: 3 },
  variants: [{
    when: { use_swiglu_ffn: true },
    then: {
      gated: true,
      gatedMultiple: 8,
      activations: { gelu: "silu" },
      names: { ...names, linear: { ...LINEAR, gate: GATE_UP, up: GATE_UP, down: "mlp.weights_out" } },
    },
  }],
  names,
  gguf: null,
};
