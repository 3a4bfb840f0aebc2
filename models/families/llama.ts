/** LLaMA 1, 2, 3, Vicuna, SmolLM2 and the many that share their layout. */
import type { Family } from "./family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./names.ts";

export const llama: Family = {
  name: "llama",
  models: "LLaMA 1, 2, 3.x, Vicuna, SmolLM, TinyLlama",
  modelTypes: ["llama"],
  architectures: ["LlamaForCausalLM", "LLaMAForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  window: "never",
  biases: {
    q: "attention_bias",
    k: "attention_bias",
    v: "attention_bias",
    o: "attention_bias",
    gate: "mlp_bias",
    up: "mlp_bias",
    down: "mlp_bias",
  },
  tiedByDefault: false,
  names: LLAMA_NAMES,
  gguf: { architecture: "llama", permutedRows: true, names: GGUF_NAMES },
};
