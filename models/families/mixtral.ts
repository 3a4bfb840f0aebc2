/** Mixtral: mistral with a mixture of experts in the place of the MLP. Its GGUF files say "llama". */
import type { Family } from "./family.ts";
import { llama } from "./llama.ts";
import { LLAMA_NAMES } from "./names.ts";

export const mixtral: Family = {
  name: "mixtral",
  models: "Mixtral 8x7B, 8x22B",
  modelTypes: ["mixtral"],
  architectures: ["MixtralForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  window: "always",
  biases: {},
  tiedByDefault: false,
  defaults: { rms_norm_eps: 1e-5, rope_theta: 1e6, num_local_experts: 8, num_experts_per_tok: 2 },
  names: LLAMA_NAMES,
  gguf: llama.gguf,
};
