/** OPT: layernorm, learned positions that begin at row 2, ReLU. The 350M model normalises behind its sums. */
import type { Family } from "./family.ts";

export const opt: Family = {
  name: "opt",
  modelTypes: ["opt"],
  architectures: ["OPTForCausalLM"],
  norm: "layernorm",
  gated: false,
  positions: "learned",
  window: "never",
  biases: {
    q: "enable_bias",
    k: "enable_bias",
    v: "enable_bias",
    o: "enable_bias",
    up: "enable_bias",
    down: "enable_bias",
  },
  tiedByDefault: true,
  fields: { intermediate_size: "ffn_dim", hidden_act: "activation_function" },
  defaults: { enable_bias: true, hidden_act: "relu", rms_norm_eps: 1e-5 },
  requires: { _remove_final_layer_norm: false, layer_norm_elementwise_affine: true },
  variants: [{ when: { do_layer_norm_before: false }, then: { normPlacement: "after" } }],
  names: {
    prefixes: ["model.decoder.", "decoder.", ""],
    embedding: "embed_tokens",
    positions: { tensor: "embed_positions", firstRow: 2 },
    projections: { in: "project_in", out: "project_out" },
    finalNorm: "final_layer_norm",
    head: "lm_head",
    block: "layers.{block}.",
    norms: { attnNorm: "self_attn_layer_norm", mlpNorm: "final_layer_norm" },
    linear: {
      q: "self_attn.q_proj",
      k: "self_attn.k_proj",
      v: "self_attn.v_proj",
      o: "self_attn.out_proj",
      up: "fc1",
      down: "fc2",
    },
  },
  gguf: null,
};
