/** BERT: text classifiers and embedding models. Norms stand behind the sums, and one behind the embeddings. */
import type { Family } from "./family.ts";

export const bert: Family = {
  name: "bert",
  models: "BERT classifiers and embedding models (BGE, E5, GTE, MiniLM)",
  modelTypes: ["bert"],
  architectures: ["BertForSequenceClassification", "BertModel"],
  norm: "layernorm",
  normPlacement: "after",
  gated: false,
  positions: "learned",
  window: "never",
  encoder: {
    reads: "text",
    embeddingNorm: true,
    pooling: "mean",
    pooler: "tanh",
    classifiers: { BertForSequenceClassification: "pooler" },
  },
  biases: { q: true, k: true, v: true, o: true, up: true, down: true },
  tiedByDefault: true,
  fields: { rms_norm_eps: "layer_norm_eps" },
  defaults: { hidden_act: "gelu", rms_norm_eps: 1e-12, type_vocab_size: 2, max_position_embeddings: 512 },
  requires: { position_embedding_type: "absolute", is_decoder: false },
  names: {
    prefixes: ["bert.", ""],
    embedding: "embeddings.word_embeddings",
    positions: { tensor: "embeddings.position_embeddings", firstRow: 0 },
    block: "encoder.layer.{block}.",
    norms: { attnNorm: "attention.output.LayerNorm", mlpNorm: "output.LayerNorm" },
    linear: {
      q: "attention.self.query",
      k: "attention.self.key",
      v: "attention.self.value",
      o: "attention.output.dense",
      up: "intermediate.dense",
      down: "output.dense",
    },
    encoder: {
      tokenTypes: { tensor: "embeddings.token_type_embeddings" },
      embeddingNorm: { tensor: "embeddings.LayerNorm" },
      pooler: { tensor: "pooler.dense" },
      classifier: { tensor: "classifier", bare: true },
    },
  },
  gguf: null,
};
