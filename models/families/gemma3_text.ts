/** Gemma 3, text: norms of heads instead of soft caps; blocks with a sliding window have rotary frequencies of their own. */
import type { Family } from "./family.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";

export const gemma3Text: Family = {
  ...gemma2,
  name: "gemma3_text",
  models: "Gemma 3, text (270M, 1B)",
  modelTypes: ["gemma3_text"],
  architectures: ["Gemma3ForCausalLM"],
  headNorms: true,
  defaults: {
    ...gemma.defaults,
    max_position_embeddings: 131_072,
    query_pre_attn_scalar: 256,
    sliding_window: 4096,
    sliding_window_pattern: 6,
    rope_theta: 1_000_000,
    rope_local_base_freq: 10_000,
  },
  requires: { use_bidirectional_attention: false },
  names: {
    ...gemma2.names,
    norms: { ...gemma2.names.norms, qNorm: "self_attn.q_norm", kNorm: "self_attn.k_norm" },
  },
  gguf: {
    architecture: "gemma3",
    names: {
      ...gemma2.gguf!.names,
      norms: { ...gemma2.gguf!.names.norms, qNorm: "attn_q_norm", kNorm: "attn_k_norm" },
    },
    queryScalars: { 62: 168 }, // 27B
  },
};
