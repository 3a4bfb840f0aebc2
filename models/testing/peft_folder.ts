/** PEFT folders of random adapters, for tests of any model. */
import { join } from "node:path";
import { ADAPTER_CONFIG } from "../peft/adapter_config.ts";
import { type PeftModule, peftModules } from "../peft/modules.ts";
import { ADAPTER_WEIGHTS } from "../peft/read_adapter.ts";
import type { ModelSpec } from "../spec.ts";
import { float32Tensor, safetensorsBytes, type TensorBytes } from "./safetensors_bytes.ts";

export interface PeftFolderOptions {
  readonly rank?: number;
  readonly seed?: number;
  /** Size of the values of A and B. */
  readonly size?: number;
  /** Default: all. */
  readonly modules?: (module: PeftModule) => boolean;
  /** More fields of the config, or others. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** A and B of a module, row-major, as they are in the file. */
export interface RandomPair {
  readonly module: PeftModule;
  readonly A: Float32Array;
  readonly B: Float32Array;
}

/** Writes the two files. @returns what is in them, alpha / r being 2 */
export async function writePeftFolder(
  folder: string,
  spec: ModelSpec,
  { rank = 2, seed = 1, size = 0.1, modules = () => true, config = {} }: PeftFolderOptions = {},
): Promise<RandomPair[]> {
  const random = uniform(seed);
  const values = (count: number) => Float32Array.from({ length: count }, () => size * random());
  const pairs = peftModules(spec).filter(modules).map((module) => {
    const [dOut, dIn] = module.shape;
    return { module, A: values(rank * dIn), B: values(dOut * rank) };
  });
  const fields = { peft_type: "LORA", r: rank, lora_alpha: 2 * rank, bias: "none", ...config };
  await Deno.writeTextFile(join(folder, ADAPTER_CONFIG), JSON.stringify(fields));
  await writePeftWeights(
    folder,
    pairs.flatMap(({ module: { path, shape: [dOut, dIn] }, A, B }) => [
      float32Tensor(`base_model.model.${path}.lora_A.weight`, [rank, dIn], A),
      float32Tensor(`base_model.model.${path}.lora_B.weight`, [dOut, rank], B),
    ]),
  );
  return pairs;
}

export const writePeftWeights = (folder: string, tensors: readonly TensorBytes[]): Promise<void> =>
  Deno.writeFile(join(folder, ADAPTER_WEIGHTS), safetensorsBytes(tensors));

/** Between -1 and 1. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1;
}
