/** Reads a PEFT folder (adapter_config.json, adapter_model.safetensors) as an adapter of a given model. */
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";
import { type LoraAdapter, type LoraLayer, MAX_LORA_RANK } from "../adapter.ts";
import { readJsonFile } from "../formats/json_file.ts";
import { isPickleName } from "../formats/pickle.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import type { ModelSpec } from "../spec.ts";
import { ADAPTER_CONFIG, type AdapterConfig, readAdapterConfig } from "./adapter_config.ts";
import { modulesByPath, type PeftModule, rowsOf } from "./modules.ts";

export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

const MAX_CONFIG_BYTES = 4 << 20;
/** Of all A and B: 2 GiB as float32; rank 64 on every layer of a 7B has 160 M. */
export const MAX_ADAPTER_VALUES = 2 ** 29;

export interface PeftAdapter extends LoraAdapter {
  /** What the file says it was trained on; null: it does not. */
  readonly baseModel: string | null;
  /** Of its layers, the largest. */
  readonly rank: number;
  /** Numbers in A and B, of fused modules once. */
  readonly parameters: number;
}

const bad = (why: string) => new OatmillError("invalid_adapter", why, "adapter");

/**
 * @param folder with adapter_config.json and adapter_model.safetensors
 * @param model the adapter's model: its spec, and its name for messages
 * @throws {OatmillError} invalid_adapter (what cannot be taken, or does not fit), unsupported_format (pickles, types),
 *   invalid_checkpoint (a broken safetensors file), non_finite_weights
 */
export async function readAdapter(
  folder: string,
  { spec, name }: { readonly spec: ModelSpec; readonly name: string },
): Promise<PeftAdapter> {
  const config = readAdapterConfig(await readConfigFile(folder));
  using file = await openWeights(folder);
  const modules = modulesByPath(spec), pairs = pairsOf(file, modules, name);
  const values = [...file.entries.values()].reduce((sum, { shape }) => sum + countOf(shape), 0);
  if (values > MAX_ADAPTER_VALUES) {
    throw bad(`Cannot use "${file.name}": its A and B have ${values} numbers, at most ${MAX_ADAPTER_VALUES}`);
  }
  const layers = new Map<string, LoraLayer>();
  let rank = 0;
  for (const pair of pairs) {
    checkPair(pair, { config, file, name });
    rank = Math.max(rank, config.rankOf(pair.path));
    for (const [layer, factors] of await readLayers(file, pair, config)) layers.set(layer, factors);
  }
  return { layers, baseModel: config.baseModel, rank, parameters: values };
}

async function readConfigFile(folder: string): Promise<Readonly<Record<string, unknown>>> {
  const json = await readJsonFile(join(folder, ADAPTER_CONFIG), "invalid_adapter", MAX_CONFIG_BYTES);
  if (json) return json;
  throw bad(
    `Cannot read an adapter without ${ADAPTER_CONFIG}: wanted is PEFT's folder, with ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS}`,
  );
}

async function openWeights(folder: string): Promise<SafetensorsFile> {
  const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  if (names.includes(ADAPTER_WEIGHTS)) return await SafetensorsFile.open(join(folder, ADAPTER_WEIGHTS));
  const pickle = names.find(isPickleName);
  throw pickle ? adapterPickleRefused(pickle) : bad(`Cannot read an adapter without ${ADAPTER_WEIGHTS}`);
}

/** The refusal of adapter_model.bin: why, and the way out. */
export const adapterPickleRefused = (name: string): OatmillError =>
  new OatmillError(
    "unsupported_format",
    `Cannot read ${JSON.stringify(name.slice(0, 100))}: it is a pickle, and reading a pickle runs code; ` +
      "convert it first, on a machine where that code may run: " +
      'in Python, PeftModel.from_pretrained(model, "OLD").save_pretrained("NEW", safe_serialization=True)',
    "adapter",
  );

/** A and B of one module; `path` as the adapter calls it. */
interface Pair {
  readonly path: string;
  readonly module: PeftModule;
  A?: string;
  B?: string;
}

/** PEFT's names: the wrapper's prefix, the module, the factor. */
const TENSOR = /^base_model\.model\.(?<path>.+)\.lora_(?<factor>[AB])(?:\.default)?\.weight$/;
/** Tensors of what is refused, by what their names hold. */
const FOREIGN: readonly (readonly [part: string, what: string])[] = [
  ["lora_magnitude_vector", "it belongs to DoRA, which is not known here"],
  ["lora_embedding_", "adapters of embeddings are not known here"],
  [".bias", "biases are not part of B A"],
];

function pairsOf(
  file: SafetensorsFile,
  modules: ReadonlyMap<string, PeftModule>,
  model: string,
): Pair[] {
  const pairs = new Map<PeftModule, Pair>();
  for (const name of file.entries.keys()) {
    const refused = (why: string) =>
      bad(`Cannot use tensor "${name.slice(0, 200)}" of "${file.name}": ${why}`);
    const { path, factor } = TENSOR.exec(name)?.groups ?? {};
    const foreign = FOREIGN.find(([part]) => name.includes(part));
    if (foreign) throw refused(foreign[1]);
    if (!path) throw refused("it is no lora_A.weight or lora_B.weight of a module");
    const module = modules.get(path);
    if (!module) throw refused(unknownModule(path, modules, model));
    if (module.rowFactors) {
      throw refused(`layers with a scale behind them (${module.rowFactors}) take no adapters`);
    }
    const pair = pairs.get(module) ?? { path, module };
    if (pair[factor as "A" | "B"]) throw refused(`module "${path}" has it twice`);
    pair[factor as "A" | "B"] = name;
    pairs.set(module, pair);
  }
  if (pairs.size === 0) throw bad(`Cannot use "${file.name}": it holds no lora_A and lora_B`);
  return [...pairs.values()];
}

/** Heads and tables are modules too, but none that an adapter is added to here. */
function unknownModule(path: string, modules: ReadonlyMap<string, PeftModule>, model: string): string {
  if (/(?:^|\.)(?:lm_head|embed_out|embed_tokens|embed_in|wte|wpe|word_embeddings)$/.test(path)) {
    return "adapters of the embedding and the head are not known here, only those of the blocks' linear layers";
  }
  const block = /\.(\d+)\./.exec(path)?.[1], last = Math.max(...modules.values().map((m) => m.block));
  if (block && Number(block) > last) {
    return `model "${model}" has no such module: its last block is ${last}`;
  }
  const kinds = [...new Set(modules.values().map((m) => m.path.replace(/^.*\.\d+\.(?=\D)/, "")))];
  return `model "${model}" has no such module; those of its blocks are ${
    kinds.slice(0, 12).join(", ").slice(0, 400)
  }`;
}

function checkPair(
  { path, module, A, B }: Pair,
  { config, file, name }: {
    readonly config: AdapterConfig;
    readonly file: SafetensorsFile;
    readonly name: string;
  },
): void {
  if (!A || !B) throw bad(`Cannot use "${file.name}": module "${path}" has no lora_${A ? "B" : "A"}.weight`);
  const leftOut = config.leavesOut(path, module.block);
  if (leftOut) throw bad(`Cannot use tensor "${A}" of "${file.name}": ${ADAPTER_CONFIG}'s ${leftOut}`);
  const rank = config.rankOf(path), [dOut, dIn] = module.shape;
  const pruned = module.parts.find((part) => part.pruned);
  if (pruned) {
    throw bad(
      `Cannot use tensor "${A}" of "${file.name}": structured pruning left layer ${pruned.layer} of "${name}" ` +
        `[${pruned.pruned}] of [${pruned.shape}], an adapter of the whole layer does not fit`,
    );
  }
  for (const [tensor, wanted] of [[A, [rank, dIn]], [B, [dOut, rank]]] as const) {
    const { shape } = file.entries.get(tensor)!;
    if (shape.length === 2 && shape[0] === wanted[0] && shape[1] === wanted[1]) continue;
    throw bad(
      `Cannot use tensor "${tensor}" of "${file.name}": its shape is [${shape}], rank ${rank} (at most ` +
        `${MAX_LORA_RANK}) on module "${module.path}" of model "${name}" wants [${wanted}]`,
    );
  }
}

/** The layers of a module: one A, and the rows of B that are each one's, times the scale. */
async function readLayers(
  file: SafetensorsFile,
  { path, module, A, B }: Pair,
  config: AdapterConfig,
): Promise<[string, LoraLayer][]> {
  const rank = config.rankOf(path), scale = config.scaleOf(path);
  const a = await readFinite(file, A!), b = await readFinite(file, B!);
  const scaled = b.map((x) => x * scale);
  if (!scaled.every(Number.isFinite)) {
    throw new OatmillError("non_finite_weights", `Cannot use tensor "${B}": times ${scale} it overflows`);
  }
  return module.parts.map((part) => {
    const own = new Float32Array(part.shape[0] * rank);
    let at = 0;
    for (const row of rowsOf(part)) own.set(scaled.subarray(row * rank, (row + 1) * rank), rank * at++);
    return [part.layer, { rank, A: a, B: own }];
  });
}

async function readFinite(file: SafetensorsFile, tensor: string): Promise<Float32Array<ArrayBuffer>> {
  const data = await file.readFloat32(tensor, 0, countOf(file.entries.get(tensor)!.shape));
  const wrong = data.findIndex((x) => !Number.isFinite(x));
  if (wrong < 0) return data;
  throw new OatmillError(
    "non_finite_weights",
    `Cannot use tensor "${tensor}" of "${file.name}": element ${wrong} is ${data[wrong]}, all must be finite`,
    "adapter",
  );
}

const countOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
