/** Gemma: llama with scaled embeddings and norms stored as their difference from 1; "gelu" means the tanh form. */
import type { Family } from "./family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./names.ts";

export const gemma: Family = {
  name: "gemma",
  models: "Gemma",
  modelTypes: ["gemma"],
  architectures: ["GemmaForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  scaledEmbedding: true,
  window: "never",
  biases: { q: "attention_bias", k: "attention_bias", v: "attention_bias", o: "attention_bias" },
  tiedByDefault: true,
  fields: { hidden_act: "hidden_activation" },
  defaults: { hidden_act: "gelu_pytorch_tanh", head_dim: 256, max_position_embeddings: 8192 },
  activations: { gelu: "gelu_tanh" },
  names: { ...LLAMA_NAMES, normOffset: 1 },
  gguf: { architecture: "gemma", names: GGUF_NAMES }, // whose norms are stored whole
};
