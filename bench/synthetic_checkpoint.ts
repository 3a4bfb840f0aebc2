/**
 * Writes a checkpoint of random weights in a real model's shape, as one downloads it: config.json and sharded
 * safetensors in bfloat16, a shard a block. Only decoders: they are what a config.json of the Llama family says.
 */
import { join } from "node:path";
import { seededRandom } from "../compress/random.ts";
import { OatmillError } from "../errors.ts";
import type { Shape2 } from "../kernels/layout.ts";
import { LLAMA_NAMES } from "../models/families/names.ts";
import { type LinearKind, linearShapes, type ModelSpec } from "../models/spec.ts";

interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Of uniform numbers around 0; a norm's weights are 1. */
  readonly deviation: number | null;
}

/**
 * @param folder exists and is empty
 * @returns bytes of its tensors
 * @throws {OatmillError} invalid_request: the shape is no decoder of the Llama family
 */
export async function writeSyntheticCheckpoint(folder: string, spec: ModelSpec): Promise<number> {
  const { norm, mlp, attention } = spec;
  if (norm.kind !== "rmsnorm" || !mlp.gated || mlp.activation !== "silu" || !attention.causal) {
    throw new OatmillError(
      "invalid_request",
      `Cannot write "${spec.architecture}": only decoders can be written`,
    );
  }
  const shards = shardsOf(spec), map: Record<string, string> = {};
  const random = new RandomBfloat16();
  let bytes = 0;
  for (const [i, tensors] of shards.entries()) {
    const file = `model-${String(i + 1).padStart(5, "0")}-of-${
      String(shards.length).padStart(5, "0")
    }.safetensors`;
    bytes += await writeShard(join(folder, file), tensors, random);
    for (const { name } of tensors) map[name] = file;
  }
  const write = (name: string, value: unknown) =>
    Deno.writeTextFile(join(folder, name), JSON.stringify(value, null, 2));
  await write("model.safetensors.index.json", { metadata: { total_size: bytes }, weight_map: map });
  await write("config.json", configOf(spec));
  return bytes;
}

function configOf({ attention, norm, mlp, ...spec }: ModelSpec) {
  const { rope } = attention;
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: spec.hiddenSize,
    intermediate_size: mlp.intermediateSize,
    num_hidden_layers: spec.blocks,
    num_attention_heads: attention.heads,
    num_key_value_heads: attention.kvHeads,
    vocab_size: spec.vocabSize,
    max_position_embeddings: spec.contextLength,
    hidden_act: "silu",
    rms_norm_eps: norm.eps,
    // The second frequency is theta^(-2 / dims).
    ...rope ? { rope_theta: Math.round(rope.inverseFrequencies[1] ** (-rope.dims / 2)) } : {},
    tie_word_embeddings: spec.tiedEmbeddings,
    torch_dtype: "bfloat16",
  };
}

/** Tables and the final norm, then one shard for each block. */
function shardsOf(spec: ModelSpec): Tensor[][] {
  const { hiddenSize, vocabSize } = spec;
  const tensor = (name: string, shape: readonly number[], deviation: number | null): Tensor => ({
    name: `${name}.weight`,
    shape,
    deviation,
  });
  const { embedding, finalNorm, head, block, norms, linear } = LLAMA_NAMES;
  const tables = [tensor(embedding, [vocabSize, hiddenSize], 1), tensor(finalNorm!, [hiddenSize], null)];
  if (!spec.tiedEmbeddings) tables.push(tensor(head!, [vocabSize, hiddenSize], hiddenSize ** -0.5));
  const blocks = Array.from({ length: spec.blocks }, (_, i) => {
    const prefix = block.replace("{block}", String(i));
    const layers = Object.entries(linearShapes(spec)) as [LinearKind, Shape2][];
    return [
      ...Object.values(norms).map((name) => tensor(prefix + name, [hiddenSize], null)),
      ...layers.map(([name, shape]) => tensor(prefix + linear[name], shape, shape[1] ** -0.5)),
    ];
  });
  return [tables, ...blocks];
}

const sizeOf = ({ shape }: Tensor): number => shape.reduce((a, b) => a * b, 1);

/** @returns bytes of the tensors */
async function writeShard(path: string, tensors: readonly Tensor[], random: RandomBfloat16): Promise<number> {
  let end = 0;
  const header = Object.fromEntries(tensors.map((t) => {
    const start = end;
    end += 2 * sizeOf(t);
    return [t.name, { dtype: "BF16", shape: t.shape, data_offsets: [start, end] }];
  }));
  const json = new TextEncoder().encode(JSON.stringify(header));
  using file = await Deno.open(path, { write: true, createNew: true });
  await writeAll(file, new Uint8Array(BigUint64Array.of(BigInt(json.length)).buffer));
  await writeAll(file, json);
  for (const t of tensors) {
    for (const piece of random.pieces(sizeOf(t), t.deviation)) await writeAll(file, piece);
  }
  return end;
}

async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

/** Numbers drawn once; tensors are pieces of them from random places on, so that gigabytes are there in seconds. */
const POOL = 1 << 22;
const PIECE = 1 << 20;

class RandomBfloat16 {
  readonly #random = seededRandom(1);
  readonly #uniform = Float32Array.from({ length: POOL }, () => (2 * this.#random.next() - 1) * Math.sqrt(3));

  /** Little-endian bytes of `count` numbers of this deviation around 0; of ones when it is null. */
  *pieces(count: number, deviation: number | null): Generator<Uint8Array<ArrayBuffer>> {
    const pool = new Uint16Array(POOL);
    const bits = new Uint32Array(this.#uniform.map((x) => deviation === null ? 1 : x * deviation).buffer);
    for (let i = 0; i < POOL; i++) pool[i] = bits[i] >>> 16; // the upper half of a float is a bfloat16
    for (let done = 0; done < count; done += PIECE) {
      const length = Math.min(PIECE, count - done), start = this.#random.below(POOL - length + 1);
      yield new Uint8Array(pool.slice(start, start + length).buffer);
    }
  }
}
