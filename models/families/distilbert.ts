/** DistilBERT: BERT's blocks under other names, no token types, a rectified pooler that belongs to the classifier. */
import type { Family } from "./family.ts";

export const distilbert: Family = {
  name: "distilbert",
  models: "DistilBERT classifiers and embedding models",
  modelTypes: ["distilbert"],
  architectures: ["DistilBertForSequenceClassification", "DistilBertModel"],
  norm: "layernorm",
  normPlacement: "after",
  gated: false,
  positions: "learned",
  window: "never",
  encoder: {
    reads: "text",
    embeddingNorm: true,
    pooling: "mean",
    pooler: "relu",
    classifiers: { DistilBertForSequenceClassification: "pooler" },
  },
  biases: { q: true, k: true, v: true, o: true, up: true, down: true },
  tiedByDefault: true,
  fields: {
    hidden_size: "dim",
    intermediate_size: "hidden_dim",
    num_hidden_layers: "n_layers",
    num_attention_heads: "n_heads",
    hidden_act: "activation",
  },
  defaults: { hidden_act: "gelu", rms_norm_eps: 1e-12, max_position_embeddings: 512 },
  names: {
    prefixes: ["distilbert.", ""],
    embedding: "embeddings.word_embeddings",
    positions: { tensor: "embeddings.position_embeddings", firstRow: 0 },
    block: "transformer.layer.{block}.",
    norms: { attnNorm: "sa_layer_norm", mlpNorm: "output_layer_norm" },
    linear: {
      q: "attention.q_lin",
      k: "attention.k_lin",
      v: "attention.v_lin",
      o: "attention.out_lin",
      up: "ffn.lin1",
      down: "ffn.lin2",
    },
    encoder: {
      embeddingNorm: { tensor: "embeddings.LayerNorm" },
      pooler: { tensor: "pre_classifier", bare: true },
      classifier: { tensor: "classifier", bare: true },
    },
  },
  gguf: null,
};
