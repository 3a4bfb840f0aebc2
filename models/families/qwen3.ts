/** Qwen3: llama with norms of each head of q and k. */
import type { Family } from "./family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./names.ts";

export const qwen3: Family = {
  name: "qwen3",
  models: "Qwen3 (dense)",
  modelTypes: ["qwen3"],
  architectures: ["Qwen3ForCausalLM"],
  norm: "rmsnorm",
  headNorms: true,
  gated: true,
  window: "use_sliding_window",
  biases: { q: "attention_bias", k: "attention_bias", v: "attention_bias", o: "attention_bias" },
  tiedByDefault: false,
  defaults: { head_dim: 128 },
  names: {
    ...LLAMA_NAMES,
    norms: { ...LLAMA_NAMES.norms, qNorm: "self_attn.q_norm", kNorm: "self_attn.k_norm" },
  },
  gguf: {
    architecture: "qwen3",
    names: { ...GGUF_NAMES, norms: { ...GGUF_NAMES.norms, qNorm: "attn_q_norm", kNorm: "attn_k_norm" } },
  },
};
