/** Qwen2 and Qwen2.5: llama with biases on q, k and v. */
import type { Family } from "./family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./names.ts";

export const qwen2: Family = {
  name: "qwen2",
  models: "Qwen2, Qwen2.5",
  modelTypes: ["qwen2"],
  architectures: ["Qwen2ForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  window: "use_sliding_window",
  biases: { q: true, k: true, v: true },
  tiedByDefault: false,
  names: LLAMA_NAMES,
  gguf: { architecture: "qwen2", names: GGUF_NAMES },
};
