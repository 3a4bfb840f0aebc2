/** Gemma 2: norms around attention and MLP, soft caps, a sliding window in every other block. */
import type { Family } from "./family.ts";
import { gemma } from "./gemma.ts";
import { GGUF_NAMES } from "./names.ts";

export const gemma2: Family = {
  ...gemma,
  name: "gemma2",
  models: "Gemma 2",
  modelTypes: ["gemma2"],
  architectures: ["Gemma2ForCausalLM"],
  normPlacement: "around",
  window: "sliding_window_pattern",
  defaults: {
    ...gemma.defaults,
    query_pre_attn_scalar: 256,
    sliding_window: 4096,
    sliding_window_pattern: 2,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
  },
  names: {
    ...gemma.names,
    norms: {
      attnNorm: "input_layernorm",
      attnPostNorm: "post_attention_layernorm",
      mlpNorm: "pre_feedforward_layernorm",
      mlpPostNorm: "post_feedforward_layernorm",
    },
  },
  gguf: {
    architecture: "gemma2",
    names: {
      ...GGUF_NAMES,
      norms: { ...GGUF_NAMES.norms, attnPostNorm: "post_attention_norm", mlpPostNorm: "post_ffw_norm" },
    },
    queryScalars: { 46: 144 }, // 27B
  },
};
