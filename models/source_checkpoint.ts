/** A {@linkcode Checkpoint} over named tensors: checks every shape when it is made, every value when it is read. */
import { OatmillError } from "../errors.ts";
import type { Checkpoint, TokenizerFiles, Weight, WeightRole } from "./checkpoint.ts";
import type { WeightLocation } from "./families/weight_names.ts";
import type { ModelSpec } from "./spec.ts";
import type { TensorSource } from "./tensor_source.ts";

export interface SourceCheckpointInput {
  readonly path: string;
  readonly spec: ModelSpec;
  readonly source: TensorSource;
  readonly locations: ReadonlyMap<WeightRole, WeightLocation>;
  readonly tokenizerFiles: TokenizerFiles | null;
}

export class SourceCheckpoint implements Checkpoint {
  readonly spec: ModelSpec;
  readonly path: string;
  readonly format: Checkpoint["format"];
  readonly tensorBytes: number;
  readonly tokenizerFiles: TokenizerFiles | null;
  readonly #source: TensorSource;
  readonly #locations: ReadonlyMap<WeightRole, WeightLocation>;

  /** @throws {OatmillError} invalid_checkpoint when a tensor is missing or has another shape than the spec says */
  constructor({ path, spec, source, locations, tokenizerFiles }: SourceCheckpointInput) {
    for (const location of locations.values()) checkShape(source, location);
    this.spec = spec;
    this.path = path;
    this.format = source.format;
    this.tensorBytes = source.tensorBytes;
    this.tokenizerFiles = tokenizerFiles;
    this.#source = source;
    this.#locations = locations;
  }

  has(role: WeightRole): boolean {
    return this.#locations.has(role);
  }

  async read(role: WeightRole): Promise<Weight> {
    const location = this.#locations.get(role);
    if (!location) {
      throw new OatmillError("invalid_checkpoint", `Cannot read weight "${role}": the model has none`);
    }
    const { tensor, shape, firstRow, interleavedHeads } = location;
    const rowLength = shape[1] ?? 1;
    const data = await this.#source.readFloat32(tensor, firstRow * rowLength, shape[0] * rowLength);
    this.#requireFinite(tensor, data);
    return { data: interleavedHeads ? rotateHalfRows(data, interleavedHeads, rowLength) : data, shape };
  }

  close(): void {
    this.#source.close();
  }

  #requireFinite(tensor: string, data: Float32Array): void {
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(data[i])) {
        throw new OatmillError(
          "non_finite_weights",
          `Cannot use tensor "${tensor}" of "${this.#source.info(tensor)?.file}": element ${i} is ${
            data[i]
          }, all must be finite (no NaN, no Inf)`,
        );
      }
    }
  }
}

function checkShape(source: TensorSource, { tensor, shape, tensorRows }: WeightLocation): void {
  const info = source.info(tensor);
  if (!info) {
    throw new OatmillError("invalid_checkpoint", `Cannot open the checkpoint: tensor "${tensor}" is missing`);
  }
  const wanted = [tensorRows, ...shape.slice(1)];
  if (info.shape.length !== wanted.length || info.shape.some((n, i) => n !== wanted[i])) {
    throw new OatmillError(
      "invalid_checkpoint",
      `Cannot use tensor "${tensor}" of "${info.file}": its shape is [${info.shape}], the config wants [${wanted}]`,
    );
  }
}

/**
 * llama.cpp stores row pair i of a head as rows 2i and 2i+1; "rotate half" wants them at i and i + headDim / 2.
 * @param data `[heads x headDim, rowLength]`
 */
function rotateHalfRows(data: Float32Array, heads: number, rowLength: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(data.length);
  const headDim = data.length / rowLength / heads;
  for (let row = 0; row < heads * headDim; row++) {
    const inHead = row % headDim, pair = inHead % (headDim / 2), half = inHead < headDim / 2 ? 0 : 1;
    const from = row - inHead + 2 * pair + half;
    out.set(data.subarray(from * rowLength, (from + 1) * rowLength), row * rowLength);
  }
  return out;
}
