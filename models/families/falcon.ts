/** Falcon 7B: attention with one KV head and the MLP side by side, behind one norm. */
import type { Family, FusedName } from "./family.ts";
import { GGUF_FUSED_NAMES } from "./names.ts";

const QKV: FusedName = { tensor: "self_attention.query_key_value", parts: ["q", "k", "v"], byKvHead: true };

export const falcon: Family = {
  name: "falcon",
  models: "Falcon 7B",
  modelTypes: ["falcon", "RefinedWebModel"],
  architectures: ["FalconForCausalLM", "RWForCausalLM"],
  norm: "layernorm",
  parallel: true,
  gated: false,
  window: "never",
  biases: { q: "bias", k: "bias", v: "bias", o: "bias", up: "bias", down: "bias" },
  tiedByDefault: true,
  fields: {
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    intermediate_size: "ffn_hidden_size",
    hidden_act: "activation",
    rms_norm_eps: "layer_norm_epsilon",
  },
  defaults: { hidden_act: "gelu", rms_norm_eps: 1e-5, multi_query: true },
  intermediateFactor: 4,
  requires: { alibi: false, new_decoder_architecture: false, parallel_attn: true },
  variants: [{ when: { multi_query: true }, then: { defaults: { num_key_value_heads: 1 } } }],
  names: {
    prefixes: ["transformer.", ""],
    embedding: "word_embeddings",
    finalNorm: "ln_f",
    head: "lm_head",
    block: "h.{block}.",
    norms: { attnNorm: "input_layernorm", mlpNorm: "input_layernorm" },
    linear: {
      q: QKV,
      k: QKV,
      v: QKV,
      o: "self_attention.dense",
      up: "mlp.dense_h_to_4h",
      down: "mlp.dense_4h_to_h",
    },
  },
  gguf: {
    architecture: "falcon",
    names: { ...GGUF_FUSED_NAMES, norms: { attnNorm: "attn_norm", mlpNorm: "attn_norm" } },
  },
};
