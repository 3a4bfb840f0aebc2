/** Phi-3 and Phi-4: llama with fused q, k, v and fused gate, up. */
import type { Family } from "./family.ts";
import { GGUF_FUSED_NAMES, LLAMA_NAMES } from "./names.ts";

export const phi3: Family = {
  name: "phi3",
  models: "Phi-3, Phi-3.5, Phi-4, Phi-4-mini",
  modelTypes: ["phi3"],
  architectures: ["Phi3ForCausalLM"],
  norm: "rmsnorm",
  gated: true,
  window: "always",
  biases: {},
  tiedByDefault: false,
  names: {
    ...LLAMA_NAMES,
    linear: {
      q: { tensor: "self_attn.qkv_proj", parts: ["q", "k", "v"] },
      k: { tensor: "self_attn.qkv_proj", parts: ["q", "k", "v"] },
      v: { tensor: "self_attn.qkv_proj", parts: ["q", "k", "v"] },
      o: "self_attn.o_proj",
      gate: { tensor: "mlp.gate_up_proj", parts: ["gate", "up"] },
      up: { tensor: "mlp.gate_up_proj", parts: ["gate", "up"] },
      down: "mlp.down_proj",
    },
  },
  gguf: {
    architecture: "phi3",
    names: {
      ...GGUF_FUSED_NAMES,
      linear: {
        ...GGUF_FUSED_NAMES.linear,
        gate: { tensor: "ffn_up", parts: ["gate", "up"] },
        up: { tensor: "ffn_up", parts: ["gate", "up"] },
      },
    },
  },
};
