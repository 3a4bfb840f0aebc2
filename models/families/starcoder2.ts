/** StarCoder2: llama's order with layernorms, biases, a sliding window and an MLP without a gate. */
import type { Family } from "./family.ts";
import { GGUF_NAMES, LLAMA_NAMES } from "./names.ts";

const { q, k, v, o } = LLAMA_NAMES.linear;

export const starcoder2: Family = {
  name: "starcoder2",
  models: "StarCoder2",
  modelTypes: ["starcoder2"],
  architectures: ["Starcoder2ForCausalLM"],
  norm: "layernorm",
  gated: false,
  window: "always",
  biases: { q: "use_bias", k: "use_bias", v: "use_bias", o: "use_bias", up: "use_bias", down: "use_bias" },
  tiedByDefault: true,
  fields: { rms_norm_eps: "norm_epsilon" },
  defaults: { use_bias: true, hidden_act: "gelu_pytorch_tanh", rms_norm_eps: 1e-5 },
  requires: { norm_type: "layer_norm", mlp_type: "default" },
  names: { ...LLAMA_NAMES, linear: { q, k, v, o, up: "mlp.c_fc", down: "mlp.c_proj" } },
  gguf: { architecture: "starcoder2", names: GGUF_NAMES },
};
