/**
 * A checkpoint as a {@linkcode PackedModel}: dense weights, packed one by one while they are loaded. It is how dense
 * models are served (`method: "none"`), evaluated exactly (`f32`) and sampled from for calibration.
 */
import { packedBytes, type Shape2, type WeightFormat } from "../kernels/layout.ts";
import { packF32, packQ4, packQ8 } from "../kernels/packers.ts";
import type { Checkpoint, WeightRole } from "./checkpoint.ts";
import { encoderWeights } from "./encoder_spec.ts";
import type { TensorEntry } from "./formats/artifact_header.ts";
import type { PackedModel } from "./packed.ts";
import type { DENSE_VALUES } from "./recipe.ts";
import {
  blockNorms,
  blockSpec,
  hasFinalNorm,
  linearShapes,
  type ModelSpec,
  type NormName,
  type NormShape,
  normShape,
  readsTokens,
  routerShape,
} from "./spec.ts";

export type DenseValues = (typeof DENSE_VALUES)[number];

const ALIGN = 64;
/** 64-byte aligned, so that vector loads never cross a line at a tensor's start. */
export const alignUp = (n: number): number => Math.ceil(n / ALIGN) * ALIGN;

const FORMAT: Readonly<Record<DenseValues, WeightFormat>> = {
  f32: { kind: "f32" },
  int8: { kind: "q8" },
  int4: { kind: "q4" },
};

/** Learned positions, token types, the projection of patches: little of a model, and all that follows stands on them. */
export const POSITIONS_FORMAT: WeightFormat = { kind: "f32" };

/** Routers: little, and what they choose is all or nothing. */
export const ROUTER_FORMAT: WeightFormat = { kind: "f32" };

/** Default activation block: 2 chunks = 128 columns (kernels.md of the design: 0.4-1.2 % perplexity, 1.02 of the score). */
export const DENSE_BLOCK_CHUNKS = 2;

export interface NamedFormat {
  readonly name: string;
  readonly role: WeightRole;
  readonly format: TensorEntry["format"];
  readonly shape: readonly number[];
}

/** Bytes of a tensor in its format. */
export function entryBytes(format: TensorEntry["format"], shape: readonly number[]): number {
  return format.kind === "vector"
    ? shape.reduce((a, b) => a * b, 1) * 4
    : packedBytes(format, [shape[0], shape[1]] as Shape2);
}

/** How the weights of an encoder's two ends are stored, and their biases: exactly. */
export function encoderTensors(spec: ModelSpec): NamedFormat[] {
  const vector = { kind: "vector" } as const;
  return encoderWeights(spec).flatMap(({ role, shape, bias, packed }): NamedFormat[] => [
    { name: role, role, format: packed ? POSITIONS_FORMAT : vector, shape },
    ...bias > 0
      ? [{ name: `${role}.bias`, role: `${role}.bias` as const, format: vector, shape: [bias] }]
      : [],
  ]);
}

/** Names, roles and formats of all tensors: embedding first, then the blocks, then final norm and head. */
function denseTensors(checkpoint: Checkpoint, values: DenseValues): NamedFormat[] {
  const { spec } = checkpoint;
  const list: NamedFormat[] = [];
  const norm = (name: WeightRole, { length, bias }: NormShape) => {
    for (const role of bias ? [name, `${name}.bias` as WeightRole] : [name]) {
      list.push({ name: role, role, format: { kind: "vector" }, shape: [length] });
    }
  };
  // The embedding and the head stay at 8 bits even where the blocks have 4: they are read once and carry the most.
  const outer: WeightFormat = values === "f32" ? { kind: "f32" } : { kind: "q8" };
  if (readsTokens(spec)) {
    list.push({
      name: "embedding",
      role: "embedding",
      format: outer,
      shape: [spec.vocabSize, spec.hiddenSize],
    });
  }
  if (spec.learnedPositions) {
    const shape = [spec.contextLength, spec.hiddenSize];
    list.push({ name: "positions", role: "positions", format: POSITIONS_FORMAT, shape });
  }
  list.push(...encoderTensors(spec));
  const norms = Object.entries(blockNorms(spec)) as [NormName, NormShape][], router = routerShape(spec);
  for (let i = 0; i < spec.blocks; i++) {
    for (const [name, shape] of norms) norm(`block.${i}.${name}`, shape);
    if (router) {
      const role: WeightRole = `block.${i}.router`;
      list.push({ name: role, role, format: ROUTER_FORMAT, shape: router });
    }
    for (const [name, shape] of Object.entries(linearShapes(blockSpec(spec, i)))) {
      const role = `block.${i}.${name}` as WeightRole;
      list.push({ name: `${role}.w`, role, format: FORMAT[values], shape });
      const bias = `${role}.bias` as WeightRole;
      if (checkpoint.has(bias)) {
        list.push({ name: bias, role: bias, format: { kind: "vector" }, shape: [shape[0]] });
      }
    }
  }
  if (hasFinalNorm(spec)) norm("finalNorm", normShape(spec));
  if (spec.attention.causal && !spec.tiedEmbeddings) {
    list.push({ name: "head", role: "head", format: outer, shape: [spec.vocabSize, spec.hiddenSize] });
  }
  return list;
}

/** Packs dense values `[dOut, dIn]` in a dense format. */
export function packDenseTensor(
  data: Float32Array,
  shape: readonly number[],
  format: TensorEntry["format"],
): Uint8Array {
  const s = [shape[0], shape[1]] as Shape2;
  switch (format.kind) {
    case "vector":
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    case "f32":
      return packF32(data, s);
    case "q8":
      return packQ8(data, s);
    case "q4":
      return packQ4(data, s);
    case "windows":
      throw new TypeError(`Cannot pack dense weights as "${format.kind}"`);
  }
}

/**
 * @param options.values `f32` keeps the weights exact; `int8`, `int4` round to nearest
 * @throws {OatmillError} what {@linkcode Checkpoint.read} throws, while loading
 */
export function packDense(
  checkpoint: Checkpoint,
  options: { readonly values: DenseValues; readonly name?: string },
): PackedModel {
  const list = denseTensors(checkpoint, options.values);
  let offset = 0;
  const tensors = list.map((t) => {
    const bytes = entryBytes(t.format, t.shape);
    const entry: TensorEntry = { name: t.name, format: t.format, shape: t.shape, offset, bytes };
    offset = alignUp(offset + bytes);
    return entry;
  });
  return {
    name: options.name ?? "dense",
    spec: checkpoint.spec,
    imageProcessor: checkpoint.imageProcessor ?? null,
    blockChunks: DENSE_BLOCK_CHUNKS,
    tensors,
    async load(destination) {
      for (let i = 0; i < list.length; i++) {
        const { data } = await checkpoint.read(list[i].role);
        destination(tensors[i]).set(packDenseTensor(data, list[i].shape, list[i].format));
      }
    },
  };
}
