/** CLIP's image encoder, alone or beside its text encoder: a norm before the first block, one for the pooled vector. */
import type { Family } from "./family.ts";

export const clipVision: Family = {
  name: "clip_vision",
  models: "CLIP's image encoder",
  modelTypes: ["clip_vision_model"],
  architectures: ["CLIPVisionModelWithProjection", "CLIPVisionModel"],
  norm: "layernorm",
  gated: false,
  positions: "learned",
  window: "never",
  encoder: {
    reads: "images",
    embeddingNorm: true,
    normsPooled: true,
    patchBias: false,
    pooling: "cls",
    classifiers: {},
    projected: ["CLIPVisionModelWithProjection", "CLIPModel"],
  },
  biases: { q: true, k: true, v: true, o: true, up: true, down: true },
  tiedByDefault: true,
  fields: { rms_norm_eps: "layer_norm_eps" },
  defaults: {
    vocab_size: 0,
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    projection_dim: 512,
    image_size: 224,
    patch_size: 32,
    hidden_act: "quick_gelu",
    rms_norm_eps: 1e-5,
  },
  requires: { num_channels: 3 },
  names: {
    prefixes: ["vision_model.", ""],
    embedding: "embeddings.patch_embedding",
    finalNorm: "post_layernorm",
    block: "encoder.layers.{block}.",
    norms: { attnNorm: "layer_norm1", mlpNorm: "layer_norm2" },
    linear: {
      q: "self_attn.q_proj",
      k: "self_attn.k_proj",
      v: "self_attn.v_proj",
      o: "self_attn.out_proj",
      up: "mlp.fc1",
      down: "mlp.fc2",
    },
    encoder: {
      classToken: { tensor: "embeddings.class_embedding", parameter: { ones: 0 } },
      positions: { tensor: "embeddings.position_embedding" },
      embeddingNorm: { tensor: "pre_layrnorm" },
      projection: { tensor: "visual_projection", bare: true },
    },
  },
  gguf: null,
};

/** The whole of CLIP, of which images are read: the projection's width stands outside of the part that says the rest. */
export const clip: Family = {
  ...clipVision,
  name: "clip",
  models: "CLIP, of which images are read",
  modelTypes: ["clip"],
  architectures: ["CLIPModel"],
  nested: "vision_config",
};
