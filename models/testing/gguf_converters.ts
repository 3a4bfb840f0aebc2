/** How llama.cpp's converters write the families (convert_hf_to_gguf.py, gguf-py/gguf/tensor_mapping.py), as far as tests need it. */
import type { GgufField } from "./gguf_bytes.ts";

export type Config = Readonly<Record<string, number>>;

export interface Converter {
  readonly architecture: string;
  /** [Hugging Face, GGUF], within a block and outside of it, without `.weight`. */
  readonly names: Readonly<Record<string, string>>;
  readonly metadata: (config: Config) => Readonly<Record<string, GgufField | undefined>>;
  /** Norms are stored as their difference from 1 there. */
  readonly wholeNorms?: true;
  readonly transposed?: true;
  /** Fused q, k, v lie by heads there. */
  readonly headsOfFused?: true;
}

const LLAMA_NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
  input_layernorm: "attn_norm",
  post_attention_layernorm: "ffn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};
const llamaFields = (c: Config) => ({
  "attention.head_count": c.num_attention_heads,
  "attention.head_count_kv": c.num_key_value_heads,
  "attention.key_length": c.head_dim,
  "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
  "rope.freq_base": c.rope_theta,
  block_count: c.num_hidden_layers,
  context_length: c.max_position_embeddings,
  embedding_length: c.hidden_size,
  feed_forward_length: c.intermediate_size,
});
const GEMMA2_NAMES = {
  ...LLAMA_NAMES,
  post_attention_layernorm: "post_attention_norm",
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};
const gemmaFields = (c: Config) => ({
  ...llamaFields(c),
  "attention.sliding_window": c.sliding_window,
  "attention.scale": c.query_pre_attn_scalar ** -0.5,
});
const phi3Fields = (c: Config) => ({
  ...llamaFields(c),
  "rope.dimension_count": (c.partial_rotary_factor ?? 1) * c.hidden_size / c.num_attention_heads,
  "rope.scaling.original_context_length": c.original_max_position_embeddings,
});
const GPT2_NAMES = {
  wte: "token_embd",
  wpe: "position_embd",
  ln_f: "output_norm",
  ln_1: "attn_norm",
  ln_2: "ffn_norm",
  "attn.c_attn": "attn_qkv",
  "attn.c_proj": "attn_output",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};
const NEOX: Converter = {
  architecture: "gptneox",
  headsOfFused: true,
  names: {
    embed_in: "token_embd",
    final_layer_norm: "output_norm",
    embed_out: "output",
    input_layernorm: "attn_norm",
    post_attention_layernorm: "ffn_norm",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
  },
  metadata: (c) => ({
    ...llamaFields(c),
    "attention.layer_norm_epsilon": c.layer_norm_eps,
    "rope.dimension_count": c.rotary_pct * c.hidden_size / c.num_attention_heads,
    use_parallel_residual: c.use_parallel_residual,
  }),
};

/** By the oracle that is converted. (`gpt_neox_seq` has another activation than its GGUF files can say.) */
export const CONVERTERS: Readonly<Record<string, Converter>> = {
  qwen3: { architecture: "qwen3", names: LLAMA_NAMES, metadata: llamaFields },
  phi3: {
    architecture: "phi3",
    names: LLAMA_NAMES,
    metadata: (c) => ({ ...phi3Fields(c), "attention.sliding_window": c.sliding_window }),
  },
  phi3_longrope: { architecture: "phi3", names: LLAMA_NAMES, metadata: phi3Fields },
  phi4_mini: { architecture: "phi3", names: LLAMA_NAMES, metadata: phi3Fields },
  gemma: { architecture: "gemma", names: LLAMA_NAMES, metadata: llamaFields, wholeNorms: true },
  gemma2: {
    architecture: "gemma2",
    names: GEMMA2_NAMES,
    metadata: (c) => ({
      ...gemmaFields(c),
      attn_logit_softcapping: c.attn_logit_softcapping,
      final_logit_softcapping: c.final_logit_softcapping,
    }),
    wholeNorms: true,
  },
  gemma3_text: {
    architecture: "gemma3",
    names: GEMMA2_NAMES,
    metadata: (c) => ({
      ...gemmaFields(c),
      "attention.sliding_window_pattern": c.sliding_window_pattern,
      "rope.freq_base_swa": c.rope_local_base_freq,
      "rope.scaling.type": "linear",
      "rope.scaling.factor": 8.0,
    }),
    wholeNorms: true,
  },
  gpt2: {
    architecture: "gpt2",
    names: GPT2_NAMES,
    metadata: (c) => ({
      "attention.head_count": c.n_head,
      "attention.layer_norm_epsilon": c.layer_norm_epsilon,
      block_count: c.n_layer,
      context_length: c.n_positions,
      embedding_length: c.n_embd,
      feed_forward_length: 4 * c.n_embd,
    }),
    transposed: true,
  },
  gpt_neox: NEOX,
  falcon: {
    architecture: "falcon",
    names: {
      word_embeddings: "token_embd",
      ln_f: "output_norm",
      input_layernorm: "attn_norm",
      "self_attention.query_key_value": "attn_qkv",
      "self_attention.dense": "attn_output",
      "mlp.dense_h_to_4h": "ffn_up",
      "mlp.dense_4h_to_h": "ffn_down",
    },
    metadata: (c) => ({
      "attention.head_count": c.num_attention_heads,
      "attention.head_count_kv": 1,
      "attention.layer_norm_epsilon": c.layer_norm_epsilon,
      block_count: c.num_hidden_layers,
      context_length: 2048,
      embedding_length: c.hidden_size,
      feed_forward_length: 4 * c.hidden_size,
    }),
  },
  starcoder2: {
    architecture: "starcoder2",
    names: LLAMA_NAMES,
    metadata: (c) => ({
      ...llamaFields(c),
      "attention.layer_norm_epsilon": c.norm_epsilon,
      "attention.sliding_window": c.sliding_window,
    }),
  },
};
