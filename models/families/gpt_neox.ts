/** GPT-NeoX and Pythia: attention and MLP side by side, rotary positions in part of each head. */
import type { Family, FusedName } from "./family.ts";
import { GGUF_FUSED_NAMES } from "./names.ts";

const QKV: FusedName = { tensor: "attention.query_key_value", parts: ["q", "k", "v"], byKvHead: true };

export const gptNeox: Family = {
  name: "gpt_neox",
  models: "GPT-NeoX, Pythia",
  modelTypes: ["gpt_neox"],
  architectures: ["GPTNeoXForCausalLM"],
  norm: "layernorm",
  parallel: true,
  gated: false,
  window: "never",
  biases: {
    q: "attention_bias",
    k: "attention_bias",
    v: "attention_bias",
    o: "attention_bias",
    up: true,
    down: true,
  },
  tiedByDefault: false,
  fields: {
    rms_norm_eps: "layer_norm_eps",
    rope_theta: "rotary_emb_base",
    partial_rotary_factor: "rotary_pct",
  },
  defaults: { attention_bias: true, hidden_act: "gelu", rms_norm_eps: 1e-5, partial_rotary_factor: 0.25 },
  variants: [{ when: { use_parallel_residual: false }, then: { parallel: undefined } }],
  names: {
    prefixes: ["gpt_neox.", ""],
    embedding: "embed_in",
    finalNorm: "final_layer_norm",
    head: "embed_out",
    block: "layers.{block}.",
    norms: { attnNorm: "input_layernorm", mlpNorm: "post_attention_layernorm" },
    linear: {
      q: QKV,
      k: QKV,
      v: QKV,
      o: "attention.dense",
      up: "mlp.dense_h_to_4h",
      down: "mlp.dense_4h_to_h",
    },
  },
  gguf: { architecture: "gptneox", names: GGUF_FUSED_NAMES },
};
