/**
 * A model to be recovered, made in seconds: S by magnitude, L that begins at 0. What training costs does not depend on how
 * a model was compressed, only on its shapes.
 */
import { layerBudget } from "../compress/budget.ts";
import { readBlock } from "../compress/forward/dense_forward.ts";
import type { SharedTensor } from "../compress/forward/block_job.ts";
import { matrix } from "../compress/linalg/matrix.ts";
import { type Random, seededRandom } from "../compress/random.ts";
import { allocateBlock, type BlockParameters, type TrainableModel } from "../compress/recovery/parameters.ts";
import { keepPerRow } from "../compress/select.ts";
import { toShared } from "../compress/statistics.ts";
import type { Shape2 } from "../kernels/layout.ts";
import type { Checkpoint } from "../models/checkpoint.ts";
import { blockSpec, hasFinalNorm, type LinearName, linearNames } from "../models/spec.ts";

export interface PrunedOptions {
  /** Share of the weights that goes. */
  readonly rate: number;
  /** Share of what stays that L has. */
  readonly rankRatio: number;
}

/** @param options.rate of all linear layers of the blocks */
export async function prunedModel(checkpoint: Checkpoint, options: PrunedOptions): Promise<TrainableModel> {
  const { spec } = checkpoint, random = seededRandom(1), blocks: BlockParameters[] = [];
  for (let i = 0; i < spec.blocks; i++) {
    const weights = await readBlock(checkpoint, i);
    blocks.push(prunedBlock(weights, linearNames(blockSpec(spec, i)), { ...options, random }));
  }
  const head = await checkpoint.read("head");
  return {
    spec,
    blocks,
    finalNorm: hasFinalNorm(spec) ? await finalNorm(checkpoint) : null,
    head: { data: toShared(head.data), shape: head.shape },
  };
}

async function finalNorm(checkpoint: Checkpoint): Promise<TrainableModel["finalNorm"]> {
  const weight = toShared((await checkpoint.read("finalNorm")).data);
  if (!checkpoint.has("finalNorm.bias")) return { weight };
  return { weight, bias: toShared((await checkpoint.read("finalNorm.bias")).data) };
}

const isNorm = (name: string): boolean => /Norm(\.bias)?$/.test(name);

function prunedBlock(
  weights: Readonly<Record<string, SharedTensor>>,
  names: readonly LinearName[],
  { rate, rankRatio, random }: PrunedOptions & { readonly random: Random },
): BlockParameters {
  const others = Object.entries(weights).filter(([name]) => !(names as readonly string[]).includes(name));
  const layers = names.map((name) => {
    const shape = weights[name].shape as Shape2;
    const { kept, rank } = layerBudget(shape, rate, { rankRatio, pattern: "unstructured" });
    return { name, shape, rank, indices: largest(weights[name], kept) };
  });
  const block = allocateBlock({
    layers,
    norms: Object.fromEntries(
      others.filter(([name]) => isNorm(name)).map(([name, { data }]) => [name, data.length]),
    ),
    fixed: Object.fromEntries(others.filter(([name]) => !isNorm(name))),
  });
  for (const { name, kept: { indices, values }, V, shape } of block.layers) {
    indices.forEach((at, i) => values[i] = weights[name].data[at]);
    for (let i = 0; i < V.length; i++) V[i] = random.normal() / Math.sqrt(shape[1]);
  }
  for (const [name, values] of Object.entries(block.norms)) values.set(weights[name].data);
  return block;
}

/** Places of the `kept` largest weights of each row. */
function largest({ data, shape: [rows, cols] }: SharedTensor, kept: number): Uint32Array<SharedArrayBuffer> {
  const mask = keepPerRow(matrix(rows, cols, new Float32Array(data).map(Math.abs)), kept);
  const places = new Uint32Array(new SharedArrayBuffer(4 * mask.reduce((sum, one) => sum + one, 0)));
  for (let at = 0, i = 0; at < mask.length; at++) if (mask[at]) places[i++] = at;
  return places;
}
