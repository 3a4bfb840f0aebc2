/** GPT-2: layernorm, learned positions, linear layers stored transposed with q, k and v side by side. */
import type { Family, FusedName } from "./family.ts";
import { GGUF_FUSED_NAMES } from "./names.ts";

const QKV: FusedName = { tensor: "attn.c_attn", parts: ["q", "k", "v"] };

export const gpt2: Family = {
  name: "gpt2",
  models: "GPT-2",
  modelTypes: ["gpt2"],
  architectures: ["GPT2LMHeadModel"],
  norm: "layernorm",
  gated: false,
  positions: "learned",
  window: "never",
  biases: { q: true, k: true, v: true, o: true, up: true, down: true },
  tiedByDefault: true,
  fields: {
    hidden_size: "n_embd",
    intermediate_size: "n_inner",
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    max_position_embeddings: "n_positions",
    hidden_act: "activation_function",
    rms_norm_eps: "layer_norm_epsilon",
  },
  defaults: { hidden_act: "gelu_new", rms_norm_eps: 1e-5, max_position_embeddings: 1024 },
  intermediateFactor: 4,
  requires: { scale_attn_weights: true, add_cross_attention: false },
  names: {
    prefixes: ["transformer.", ""],
    embedding: "wte",
    positions: { tensor: "wpe", firstRow: 0 },
    finalNorm: "ln_f",
    head: "lm_head",
    block: "h.{block}.",
    norms: { attnNorm: "ln_1", mlpNorm: "ln_2" },
    linear: { q: QKV, k: QKV, v: QKV, o: "attn.c_proj", up: "mlp.c_fc", down: "mlp.c_proj" },
    transposed: true,
  },
  gguf: {
    architecture: "gpt2",
    names: { ...GGUF_FUSED_NAMES, positions: { tensor: "position_embd", firstRow: 0 } },
  },
};
