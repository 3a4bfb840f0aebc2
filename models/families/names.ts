/** Tensor names that several families share. */
import type { ExpertNames, FusedName, TensorNames } from "./family.ts";

/** Mixtral: one tensor a layer of an expert, or, as transformers 5 keeps them, those of all experts stacked. */
const MIXTRAL_EXPERTS: readonly ExpertNames[] = [
  {
    router: "block_sparse_moe.gate",
    linear: {
      gate: "block_sparse_moe.experts.{expert}.w1",
      up: "block_sparse_moe.experts.{expert}.w3",
      down: "block_sparse_moe.experts.{expert}.w2",
    },
  },
  {
    router: "mlp.gate",
    linear: {
      gate: { tensor: "mlp.experts.gate_up_proj", parts: ["gate", "up"] },
      up: { tensor: "mlp.experts.gate_up_proj", parts: ["gate", "up"] },
      down: { tensor: "mlp.experts.down_proj", parts: ["down"] },
    },
  },
];

/** Hugging Face names of the llama line. */
export const LLAMA_NAMES: TensorNames = {
  embedding: "model.embed_tokens",
  finalNorm: "model.norm",
  head: "lm_head",
  block: "model.layers.{block}.",
  norms: { attnNorm: "input_layernorm", mlpNorm: "post_attention_layernorm" },
  linear: {
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    o: "self_attn.o_proj",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
  },
  experts: MIXTRAL_EXPERTS,
};

const GGUF_QKV: FusedName = { tensor: "attn_qkv", parts: ["q", "k", "v"] };

/** The layers of all experts stacked. */
const GGUF_EXPERTS: readonly ExpertNames[] = [
  {
    router: "ffn_gate_inp",
    linear: {
      gate: { tensor: "ffn_gate_exps.weight", parts: ["gate"] },
      up: { tensor: "ffn_up_exps.weight", parts: ["up"] },
      down: { tensor: "ffn_down_exps.weight", parts: ["down"] },
    },
  },
];

/** GGUF has one set of names for all families (llama.cpp, gguf-py/gguf/constants.py). */
export const GGUF_NAMES: TensorNames = {
  embedding: "token_embd",
  finalNorm: "output_norm",
  head: "output",
  block: "blk.{block}.",
  norms: { attnNorm: "attn_norm", mlpNorm: "ffn_norm" },
  linear: {
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    o: "attn_output",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
  },
  experts: GGUF_EXPERTS,
};

/** With q, k and v in one tensor, whatever their order is elsewhere: the converters sort the rows. */
export const GGUF_FUSED_NAMES: TensorNames = {
  ...GGUF_NAMES,
  linear: { ...GGUF_NAMES.linear, q: GGUF_QKV, k: GGUF_QKV, v: GGUF_QKV },
};

/** Hugging Face names of ViT and what followed it. */
export const VIT_NAMES: TensorNames = {
  embedding: "embeddings.patch_embeddings.projection",
  finalNorm: "layernorm",
  block: "encoder.layer.{block}.",
  norms: { attnNorm: "layernorm_before", mlpNorm: "layernorm_after" },
  linear: {
    q: "attention.attention.query",
    k: "attention.attention.key",
    v: "attention.attention.value",
    o: "attention.output.dense",
    up: "intermediate.dense",
    down: "output.dense",
  },
  encoder: {
    classToken: { tensor: "embeddings.cls_token", parameter: { ones: 2 } },
    distillationToken: { tensor: "embeddings.distillation_token", parameter: { ones: 2 } },
    registers: { tensor: "embeddings.register_tokens", parameter: { ones: 1 } },
    positions: { tensor: "embeddings.position_embeddings", parameter: { ones: 1 } },
    classifier: { tensor: "classifier", bare: true },
  },
};
