import assert from "node:assert/strict";
import { OatmillError } from "../../errors.ts";
import { blockSpecs } from "../spec.ts";
import { specFromConfig } from "./mod.ts";

const LLAMA = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 192,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 320,
};

function refusal(change: Record<string, unknown>): string {
  try {
    specFromConfig({ ...LLAMA, ...change });
    return "accepted";
  } catch (error) {
    assert.ok(error instanceof OatmillError);
    return `${error.code}: ${error.message}`;
  }
}

Deno.test("specFromConfig() fills in what old configs leave out", () => {
  const spec = specFromConfig(LLAMA);
  assert.equal(spec.attention.kvHeads, 4);
  assert.equal(spec.attention.headDim, 16);
  assert.equal(spec.norm.eps, 1e-6);
  assert.equal(spec.contextLength, 2048);
  assert.deepEqual([spec.bosId, spec.eosIds, spec.tiedEmbeddings, spec.biases], [null, [], false, []]);
});

Deno.test("specFromConfig() knows the family by architectures when model_type is missing", () => {
  const { model_type: _, ...rest } = LLAMA;
  assert.equal(specFromConfig({ ...rest, architectures: ["MistralForCausalLM"] }).family, "mistral");
});

Deno.test("specFromConfig() joins the eos tokens of both configs and drops impossible ones", () => {
  const config = { ...LLAMA, bos_token_id: -1, eos_token_id: [2, 9999] };
  const spec = specFromConfig(config, { generation: { eos_token_id: [2, 7] } });
  assert.deepEqual([spec.bosId, spec.eosIds], [null, [2, 7]]);
});

Deno.test("a sliding window that no token can leave is none", () => {
  const mistral = { ...LLAMA, model_type: "mistral", max_position_embeddings: 128 };
  assert.equal(specFromConfig({ ...mistral, sliding_window: 128 }).attention.window, null);
  assert.equal(specFromConfig({ ...mistral, sliding_window: 127 }).attention.window, 127);
  assert.equal(specFromConfig({ ...mistral, sliding_window: null }).attention.window, null);
});

Deno.test("qwen2 slides only when use_sliding_window says so, from max_window_layers on", () => {
  const qwen2 = { ...LLAMA, model_type: "qwen2", sliding_window: 16, max_window_layers: 0 };
  assert.equal(specFromConfig(qwen2).attention.window, null);
  assert.equal(specFromConfig({ ...qwen2, use_sliding_window: true }).attention.window, 16);
  assert.equal(
    specFromConfig({ ...qwen2, use_sliding_window: true, max_window_layers: 2 }).attention.window,
    null,
  );
  const mixed = specFromConfig({ ...qwen2, use_sliding_window: true, max_window_layers: 1 });
  assert.deepEqual(blockSpecs(mixed).map(({ attention }) => attention.window), [null, 16]);
});

Deno.test("specFromConfig() takes sparse weights that compressed-tensors wrote, and none that are quantised", () => {
  const sparsity_config = { format: "sparse-bitmask", global_sparsity: 0.5, targets: ["Linear"] };
  const sparse = { quant_method: "compressed-tensors", version: "0.9.4", sparsity_config };
  for (
    const config of [
      { quantization_config: sparse },
      { compression_config: { sparsity_config: { format: "dense" } } },
      { quantization_config: { ...sparse, sparsity_config: {}, transform_config: {}, config_groups: {} } },
    ]
  ) assert.equal(specFromConfig({ ...LLAMA, ...config }).family, "llama");
  for (
    const config of [
      { quantization_config: { ...sparse, config_groups: { group_0: {} }, format: "pack-quantized" } },
      { quantization_config: { ...sparse, sparsity_config: { format: "marlin-24" } } },
      { compression_config: { quant_method: "fp8" } },
    ]
  ) assert.match(refusal(config), /unsupported_format: .*_config says "(compressed-tensors|fp8)/);
});

Deno.test("specFromConfig() names the field and its value", () => {
  assert.match(refusal({ hidden_size: null }), /invalid_config: .*hidden_size is null/);
  assert.match(refusal({ hidden_size: 1e12 }), /hidden_size is 1000000000000/);
  assert.match(refusal({ vocab_size: undefined }), /vocab_size is missing/);
  assert.match(refusal({ num_attention_heads: 5 }), /num_attention_heads is 5/);
  assert.match(refusal({ head_dim: 7 }), /head_dim is 7/);
  assert.match(refusal({ num_key_value_heads: 3 }), /num_key_value_heads is 3/);
  assert.match(refusal({ rope_scaling: { type: "linear", factor: 0 } }), /rope_scaling: factor is 0/);
  assert.match(refusal({ rope_scaling: { type: "nosuch" } }), /unsupported_architecture: .*nosuch/);
  assert.match(refusal({ quantization_config: { quant_method: "gptq" } }), /unsupported_format: .*gptq/);
  assert.match(refusal({ model_type: "__proto__" }), /unsupported_architecture/);
  assert.match(refusal({ hidden_act: "constructor" }), /hidden_act/);
});

Deno.test("a config's switches choose the family's variant, and unknown ones are refused", () => {
  const { intermediate_size: _, ...falcon } = { ...LLAMA, model_type: "falcon", multi_query: true };
  assert.deepEqual(
    [specFromConfig(falcon).attention.kvHeads, specFromConfig(falcon).mlp.intermediateSize],
    [1, 256],
  );
  assert.equal(specFromConfig({ ...falcon, multi_query: false }).attention.kvHeads, 4);
  assert.match(
    refusal({ ...falcon, alibi: true }),
    /unsupported_architecture: Cannot run falcon of config.json: alibi is true, known is false/,
  );
  const neox = { ...LLAMA, model_type: "gpt_neox" };
  assert.equal(specFromConfig(neox).parallel, true);
  assert.equal(specFromConfig({ ...neox, use_parallel_residual: false }).parallel, undefined);
  const gpt2 = { model_type: "gpt2", n_embd: 64, n_layer: 2, n_head: 4, vocab_size: 320 };
  assert.equal(specFromConfig(gpt2).mlp.intermediateSize, 256);
  assert.match(refusal({ ...gpt2, hidden_size: undefined, n_embd: -1 }), /n_embd is -1/);
});

Deno.test("layer_types say which blocks slide", () => {
  const gemma2 = { ...LLAMA, model_type: "gemma2", sliding_window: 16 };
  const windows = (config: Record<string, unknown>) =>
    blockSpecs(specFromConfig(config)).map(({ attention }) => attention.window);
  assert.deepEqual(windows(gemma2), [16, null]);
  assert.match(refusal({ ...gemma2, layer_types: [] }), /invalid_config: .*layer_types: it has 0 entries/);
  assert.deepEqual(windows({ ...gemma2, layer_types: ["full_attention", "sliding_attention"] }), [null, 16]);
});
