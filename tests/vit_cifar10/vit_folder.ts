/**
 * A small ViT trained on CIFAR-10, from the checkpoint it was published as to a folder as transformers writes it. Names and
 * shapes say most (patches of 4, width 128, 6 blocks behind a norm each, MLP 256); what they do not was found by accuracy
 * on CIFAR-10's test images: 4 heads, exact GELU, levels to -1..1.
 */
import { join } from "node:path";
import { float32Tensor, safetensorsBytes, type TensorBytes } from "../../models/testing/safetensors_bytes.ts";
import { readStateDict, type StoredTensor } from "./state_dict.ts";

const LABELS = [
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
];
const BLOCKS = 6, WIDTH = 128;

/** What the published file does not say. */
const CONFIG = {
  architectures: ["ViTForImageClassification"],
  model_type: "vit",
  hidden_size: WIDTH,
  num_hidden_layers: BLOCKS,
  num_attention_heads: 4,
  intermediate_size: 256,
  hidden_act: "gelu",
  layer_norm_eps: 1e-5,
  image_size: 32,
  patch_size: 4,
  num_channels: 3,
  qkv_bias: true,
  id2label: Object.fromEntries(LABELS.map((label, i) => [i, label])),
  label2id: Object.fromEntries(LABELS.map((label, i) => [label, i])),
};
const PREPROCESSOR = {
  image_processor_type: "ViTImageProcessor",
  do_resize: true,
  size: { height: 32, width: 32 },
  resample: 2,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
};

/** Published name -> transformers' name, for one block and for what stands around the blocks. */
const BLOCK_NAMES = {
  norm1: "layernorm_before",
  "attn.out_proj": "attention.output.dense",
  norm2: "layernorm_after",
  "mlp.0": "intermediate.dense",
  "mlp.3": "output.dense",
};
const OUTER_NAMES = {
  "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
  norm: "vit.layernorm",
  head: "classifier",
};

/**
 * @param checkpoint `best_vit.pth`
 * @param folder is made when it is not there
 */
export async function writeVitFolder(checkpoint: string, folder: string): Promise<void> {
  const tensors = vitTensors(await readStateDict(checkpoint));
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(join(folder, "model.safetensors"), safetensorsBytes(tensors));
  for (const [name, json] of [["config", CONFIG], ["preprocessor_config", PREPROCESSOR]] as const) {
    await Deno.writeTextFile(join(folder, `${name}.json`), JSON.stringify(json, null, 2));
  }
}

function vitTensors(state: ReadonlyMap<string, StoredTensor>): TensorBytes[] {
  const stored = (name: string): StoredTensor => {
    const found = state.get(name);
    if (!found) throw new Error(`The checkpoint has no ${name}`);
    return found;
  };
  const tensors: TensorBytes[] = [];
  const add = (name: string, { shape, data }: StoredTensor) => tensors.push(float32Tensor(name, shape, data));
  const both = (from: string, to: string) => {
    for (const part of ["weight", "bias"]) add(`${to}.${part}`, stored(`${from}.${part}`));
  };
  add("vit.embeddings.cls_token", stored("cls_token"));
  add("vit.embeddings.position_embeddings", stored("pos_embed.pos_embedding"));
  for (const [from, to] of Object.entries(OUTER_NAMES)) both(from, to);
  for (let i = 0; i < BLOCKS; i++) {
    const from = `transformer.${i}`, to = `vit.encoder.layer.${i}`;
    for (const [old, name] of Object.entries(BLOCK_NAMES)) both(`${from}.${old}`, `${to}.${name}`);
    ["query", "key", "value"].forEach((name, part) => {
      const target = `${to}.attention.attention.${name}`;
      add(`${target}.weight`, third(stored(`${from}.attn.in_proj_weight`), part));
      add(`${target}.bias`, third(stored(`${from}.attn.in_proj_bias`), part));
    });
  }
  return tensors;
}

/** Queries, keys and values stand above each other in one matrix. */
function third({ shape: [rows, ...rest], data }: StoredTensor, part: number): StoredTensor {
  const length = data.length / 3;
  return { shape: [rows / 3, ...rest], data: data.slice(part * length, (part + 1) * length) };
}
