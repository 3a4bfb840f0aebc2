/** Mistral 7B and its descendants: llama with a sliding window. Its GGUF files say "llama" and carry no window. */
import type { Family } from "./family.ts";
import { llama } from "./llama.ts";
import { LLAMA_NAMES } from "./names.ts";

export const mistral: Family = {
  name: "mistral",
  models: "Mistral 7B and its descendants",
  modelTypes: ["mistral"],
  architectures: ["MistralForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  window: "always",
  biases: {},
  tiedByDefault: false,
  names: LLAMA_NAMES,
  gguf: llama.gguf,
};
