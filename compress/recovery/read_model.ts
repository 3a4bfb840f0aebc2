/** An artifact's weights as what recovery trains: S, U and V of its layers in the inputs' own coordinates, norms. */
import { OatmillError } from "../../errors.ts";
import { unpack } from "../../kernels/packers.ts";
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { Artifact } from "../../models/formats/artifact.ts";
import { openTensors, type TensorReader } from "../../models/formats/artifact_tensors.ts";
import {
  blockNorms,
  blockSpec,
  hasFinalNorm,
  inputOf,
  linearNames,
  linearShapes,
} from "../../models/spec.ts";
import { routerShape } from "../../models/spec.ts";
import type { LinearName, ModelSpec } from "../../models/spec.ts";
import type { SharedTensor } from "../forward/block_job.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import { fromPackedColumns } from "../quantize.ts";
import { toShared } from "../statistics.ts";
import { checkRecoverable } from "./check.ts";
import { allocateBlock, type BlockParameters, type SharedFloats, type TrainableModel } from "./parameters.ts";

/**
 * One block's S is unpacked at a time.
 *
 * @param checkpoint the dense model, whose head both read
 * @throws {OatmillError} invalid_request: nothing is there to be trained; invalid_artifact
 */
export async function readTrainable(
  artifact: Pick<Artifact, "path" | "spec" | "tensors" | "file" | "load">,
  checkpoint: Checkpoint,
): Promise<TrainableModel> {
  checkRecoverable(artifact);
  const { spec } = artifact;
  await using tensors = await openTensors(artifact);
  const blocks = Array.from({ length: spec.blocks }, (_, block) => readBlockParameters(tensors, spec, block));
  return {
    spec,
    blocks,
    finalNorm: hasFinalNorm(spec) ? readFinalNorm(tensors) : null,
    head: { data: toShared((await checkpoint.read("head")).data), shape: [spec.vocabSize, spec.hiddenSize] },
  };
}

/** One block of an artifact. @throws {OatmillError} invalid_artifact: a tensor is missing or has another shape */
export function readBlockParameters(tensors: TensorReader, spec: ModelSpec, block: number): BlockParameters {
  const own = blockSpec(spec, block), reader = new BlockReader(tensors, own, `block.${block}`);
  const parts = linearNames(own).map((name) => ({ name, parts: reader.layer(name) }));
  const norms = reader.norms();
  const sparse = parts.flatMap(({ name, parts }) =>
    "S" in parts ? [{ name, ...parts, places: nonZeroPlaces(parts.S) }] : []
  );
  const dense = parts.flatMap(({ name, parts }) => "W" in parts ? [[name, sharedMatrix(parts.W)]] : []);
  const parameters = allocateBlock({
    layers: sparse.map(({ name, S, V, places, scale }) => ({
      name,
      shape: [S.rows, S.cols],
      rank: V?.rows ?? 0,
      indices: places,
      ...scale ? { columns: toShared(scale) } : {},
    })),
    norms: Object.fromEntries(Object.entries(norms).map(([name, values]) => [name, values.length])),
    fixed: { ...Object.fromEntries(dense), ...reader.rest() },
  });
  for (const [name, values] of Object.entries(norms)) parameters.norms[name].set(values);
  sparse.forEach(({ S, U, V, places }, i) => {
    const layer = parameters.layers[i];
    places.forEach((place, at) => layer.kept.values[at] = S.data[place]);
    if (U && V) {
      layer.U.set(U.data);
      layer.V.set(V.data);
    }
  });
  return parameters;
}

type LayerParts = { readonly W: Matrix } | {
  readonly S: Matrix;
  readonly U: Matrix | null;
  readonly V: Matrix | null;
  /** Unit of the packed columns; null: 1. */
  readonly scale: Float32Array | null;
};

class BlockReader {
  constructor(readonly tensors: TensorReader, readonly spec: ModelSpec, readonly prefix: string) {}

  /** Columns times the scale of the input, so that the parts multiply inputs as the dense model has them. */
  layer(name: LinearName): LayerParts {
    const [dOut, dIn] = linearShapes(this.spec)[name]!;
    const scale = this.#vector(`${inputOf(name)}.scale`);
    const part = (letter: string, rows: number, cols: number) =>
      this.#matrix(`${name}.${letter}`, rows, cols);
    const W = part("w", dOut, dIn);
    if (W) return { W: fromPackedColumns(W, scale) };
    const S = part("s", dOut, dIn), V = part("v", -1, dIn);
    if (!S) throw missing(`${this.prefix}.${name}`);
    const U = V && part("u", dOut, V.rows);
    if (V && !U) throw missing(`${this.prefix}.${name}.u`);
    return { S: fromPackedColumns(S, scale), U, V: V && fromPackedColumns(V, scale), scale };
  }

  norms(): Record<string, Float32Array> {
    const found: Record<string, Float32Array> = {};
    for (const norm of Object.keys(blockNorms(this.spec))) {
      for (const name of [norm, `${norm}.bias`]) {
        const values = this.#vector(name);
        if (values) found[name] = values;
      }
    }
    return found;
  }

  /** Biases of layers, and the router. */
  rest(): Record<string, SharedTensor> {
    const found: Record<string, SharedTensor> = {};
    for (const name of linearNames(this.spec)) {
      const bias = this.#vector(`${name}.bias`);
      if (bias) found[`${name}.bias`] = { data: toShared(bias), shape: [bias.length] };
    }
    const shape = routerShape(this.spec), router = shape && this.#matrix("router", ...shape);
    return router ? { ...found, router: sharedMatrix(router) } : found;
  }

  #vector(name: string): Float32Array<ArrayBuffer> | null {
    const found = this.tensors.read(`${this.prefix}.${name}`);
    return found && new Float32Array(found.bytes.buffer);
  }

  /** @param rows -1: as many as there are */
  #matrix(name: string, rows: number, cols: number): Matrix | null {
    const found = this.tensors.read(`${this.prefix}.${name}`);
    if (!found || found.entry.format.kind === "vector") return null;
    const { format, shape } = found.entry;
    if (shape[1] !== cols || (rows >= 0 && shape[0] !== rows)) throw missing(`${this.prefix}.${name}`);
    const values = unpack(format, found.bytes, [shape[0], shape[1]]);
    return matrix(shape[0], shape[1], values as Float32Array<ArrayBuffer>); // made in plain memory
  }
}

const missing = (name: string) =>
  new OatmillError(
    "invalid_artifact",
    `Tensor "${name}" is missing or has another shape than the model says`,
  );

const sharedMatrix = ({ rows, cols, data }: Matrix): SharedTensor => ({
  data: toShared(data),
  shape: [rows, cols],
});

/** Ascending. */
function nonZeroPlaces({ data }: Matrix): Uint32Array<SharedArrayBuffer> {
  let count = 0;
  for (let i = 0; i < data.length; i++) count += +(data[i] !== 0);
  const places = new Uint32Array(new SharedArrayBuffer(4 * count));
  for (let i = 0, at = 0; i < data.length; i++) if (data[i] !== 0) places[at++] = i;
  return places;
}

function readFinalNorm(tensors: TensorReader): NonNullable<TrainableModel["finalNorm"]> {
  const vector = (name: string): SharedFloats | null => {
    const found = tensors.read(name);
    return found && toShared(new Float32Array(found.bytes.buffer));
  };
  const weight = vector("finalNorm"), bias = vector("finalNorm.bias");
  if (!weight) throw missing("finalNorm");
  return { weight, ...bias ? { bias } : {} };
}
