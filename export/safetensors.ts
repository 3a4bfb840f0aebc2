/** Export as a Hugging Face folder: config.json, generation_config.json, safetensors (in shards past a size), tokenizer. */
import { join } from "node:path";
import { type SafetensorsEntry, safetensorsHeader } from "../models/formats/safetensors.ts";
import type { DenseModel } from "./dense_model.ts";
import { encodeFloats, type FloatType } from "./float_types.ts";
import { type NamedTensor, tensorsOf } from "./named_tensors.ts";
import { writeConfigs, writeJson } from "./write_configs.ts";
import { writeFolder } from "./write_folder.ts";

export interface SafetensorsOptions {
  readonly type: FloatType;
  /** No file holds more, unless a single tensor does. */
  readonly shardBytes: number;
  /** S, U and V of linear layers as tensors of their own (named_tensors.ts); no other program opens that as a model. */
  readonly parts?: boolean;
  readonly onTensor?: (done: number, total: number) => void;
}

/** transformers' default. */
export const SHARD_BYTES = 5e9;

const BYTES = { f32: 4, f16: 2, bf16: 2 } as const satisfies Record<FloatType, number>;
const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

/**
 * @param out the folder to make
 * @returns names of the files with tensors, and their bytes
 * @throws {OatmillError} conflict (`out` exists), storage_failed, unsupported_format (values beyond the type)
 */
export async function exportSafetensors(
  model: DenseModel,
  out: string,
  options: SafetensorsOptions,
): Promise<{ readonly files: readonly string[]; readonly bytes: number }> {
  const tensors = tensorsOf(model, options);
  const shards = intoShards(tensors, options);
  const names = shards.map((_, i) => shardName(i, shards.length));
  return await writeFolder(out, async (folder) => {
    let done = 0;
    for (const [i, shard] of shards.entries()) {
      await writeTensors(join(folder, names[i]), shard, options.type, () => {
        options.onTensor?.(++done, tensors.length);
      });
    }
    const bytes = tensors.reduce((sum, tensor) => sum + bytesOf(tensor, options.type), 0);
    if (shards.length > 1) await writeIndex(folder, { shards, names, bytes });
    await writeConfigs(folder, model, options.type);
    return { files: names, bytes };
  });
}

const elements = ({ shape }: NamedTensor) => shape.reduce((a, b) => a * b, 1);
const bytesOf = (tensor: NamedTensor, type: FloatType) => elements(tensor) * BYTES[type];

function intoShards(
  tensors: readonly NamedTensor[],
  { shardBytes, type }: Pick<SafetensorsOptions, "shardBytes" | "type">,
): NamedTensor[][] {
  const shards: NamedTensor[][] = [];
  let filled = Infinity;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor, type);
    if (filled + bytes > shardBytes) [filled] = [0, shards.push([])];
    shards.at(-1)!.push(tensor);
    filled += bytes;
  }
  return shards;
}

function shardName(index: number, count: number): string {
  const number = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? "model.safetensors" : `model-${number(index + 1)}-of-${number(count)}.safetensors`;
}

/** One file of all tensors. @returns their bytes @throws {OatmillError} unsupported_format */
export async function writeTensors(
  path: string,
  tensors: readonly NamedTensor[],
  type: FloatType,
  onTensor: () => void = () => {},
): Promise<number> {
  let end = 0;
  const entries = tensors.map((tensor): SafetensorsEntry => {
    const begin = end;
    end += bytesOf(tensor, type);
    return { name: tensor.name, dtype: DTYPES[type], shape: tensor.shape, begin, end };
  });
  using file = await Deno.open(path, { write: true, createNew: true });
  const writer = file.writable.getWriter();
  await writer.write(safetensorsHeader(entries, { format: "pt" })); // transformers refuses files that do not say it
  for (const { name, read } of tensors) {
    await writer.write(encodeFloats(await read(), type, name));
    onTensor();
  }
  await writer.close();
  return end;
}

async function writeIndex(
  folder: string,
  { shards, names, bytes }: {
    readonly shards: readonly (readonly NamedTensor[])[];
    readonly names: readonly string[];
    readonly bytes: number;
  },
): Promise<void> {
  const map = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]]));
  const index = { metadata: { total_size: bytes }, weight_map: Object.fromEntries(map) };
  await writeJson(join(folder, "model.safetensors.index.json"), index);
}
