/** A {@linkcode Checkpoint} over named tensors: checks every shape when it is made, every value when it is read. */
import { basename } from "node:path";
import { OatmillError } from "../errors.ts";
import type {
  Checkpoint,
  ImageProcessorConfig,
  SourceConfig,
  TokenizerFiles,
  Weight,
  WeightRole,
} from "./checkpoint.ts";
import type { WeightLocation } from "./families/weight_names.ts";
import type { ModelSpec } from "./spec.ts";
import type { TensorSource } from "./tensor_source.ts";

export interface SourceCheckpointInput {
  readonly path: string;
  readonly spec: ModelSpec;
  readonly source: TensorSource;
  readonly locations: ReadonlyMap<WeightRole, WeightLocation>;
  readonly tokenizerFiles: TokenizerFiles | null;
  readonly sourceConfig: SourceConfig;
  readonly imageProcessor?: ImageProcessorConfig | null;
}

export class SourceCheckpoint implements Checkpoint {
  readonly spec: ModelSpec;
  readonly path: string;
  readonly format: Checkpoint["format"];
  readonly tensorBytes: number;
  readonly tokenizerFiles: TokenizerFiles | null;
  readonly sourceConfig: SourceConfig;
  readonly imageProcessor: ImageProcessorConfig | null;
  readonly #source: TensorSource;
  readonly #locations: ReadonlyMap<WeightRole, WeightLocation>;

  /** @throws {OatmillError} invalid_checkpoint when a tensor is missing or has another shape than the spec says */
  constructor(input: SourceCheckpointInput) {
    const { path, spec, source, locations, tokenizerFiles, sourceConfig, imageProcessor = null } = input;
    requireTensors(path, source, locations);
    for (const location of locations.values()) checkShapes(source, location);
    this.spec = spec;
    this.path = path;
    this.format = source.format;
    this.tensorBytes = source.tensorBytes;
    this.tokenizerFiles = tokenizerFiles;
    this.sourceConfig = sourceConfig;
    this.imageProcessor = imageProcessor;
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
    const { tensor, shape, interleavedHeads, offset, times, rowFactors } = location;
    let data = await (location.transposed ? this.#readTransposed(location) : this.#readRows(location));
    this.#requireFinite(tensor, data);
    if (times) data = await this.#multiplied(data, location, times);
    if (rowFactors) await this.#scaleRows(data, rowFactors);
    if (offset !== 0) { for (let i = 0; i < data.length; i++) data[i] += offset; }
    return { data: interleavedHeads ? rotateHalfRows(data, interleavedHeads, shape[1] ?? 1) : data, shape };
  }

  /** The weight's runs of rows, one after the other. */
  async #readRows(location: WeightLocation): Promise<Float32Array<ArrayBuffer>> {
    const { tensor, shape, tensorShape, rows, times } = location;
    const width = (times ? tensorShape : shape)[1] ?? 1, run = shape[0] / rows.count * width;
    const read = (i: number) => this.#source.readFloat32(tensor, (rows.first + i * rows.apart) * width, run);
    if (rows.count === 1) return await read(0);
    const data = new Float32Array(rows.count * run);
    for (let i = 0; i < rows.count; i++) data.set(await read(i), i * run);
    return data;
  }

  /** Columns of a tensor `[dIn, all]` as rows `[dOut, dIn]`. */
  async #readTransposed(
    { tensor, shape: [dOut, dIn], tensorShape: [, all], rows }: WeightLocation,
  ): Promise<Float32Array<ArrayBuffer>> {
    const stored = await this.#source.readFloat32(tensor, 0, dIn * all);
    const data = new Float32Array(dOut * dIn);
    for (let row = 0; row < dOut; row++) {
      const column = rows.first + row; // families that store layers transposed stack them whole
      for (let i = 0; i < dIn; i++) data[row * dIn + i] = stored[i * all + column];
    }
    return data;
  }

  /** data `[rows, inner]` times the other tensor. */
  async #multiplied(
    data: Float32Array,
    { shape: [rows, cols] }: WeightLocation,
    { tensor, shape, transposed }: NonNullable<WeightLocation["times"]>,
  ): Promise<Float32Array<ArrayBuffer>> {
    const other = await this.#source.readFloat32(tensor, 0, shape[0] * shape[1]);
    this.#requireFinite(tensor, other);
    const inner = data.length / rows, out = new Float32Array(rows * cols), sums = new Float64Array(cols);
    const at = (k: number, c: number) => transposed ? other[c * inner + k] : other[k * cols + c];
    const factors = Float32Array.from(other, (_, i) => at(Math.floor(i / cols), i % cols));
    for (let row = 0; row < rows; row++) {
      sums.fill(0);
      for (let k = 0; k < inner; k++) {
        const x = data[row * inner + k];
        for (let c = 0; c < cols; c++) sums[c] += x * factors[k * cols + c];
      }
      out.set(sums, row * cols);
    }
    return out;
  }

  /** Each row (or value) of data times its entry of a vector. */
  async #scaleRows(data: Float32Array, tensor: string): Promise<void> {
    const [rows] = this.#source.info(tensor)!.shape, width = data.length / rows;
    const factors = await this.#source.readFloat32(tensor, 0, rows);
    this.#requireFinite(tensor, factors);
    for (let i = 0; i < data.length; i++) data[i] *= factors[Math.floor(i / width)];
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

/** Of files that messages name. */
const MAX_NAMED = 3;

/** A missing tensor is missing in the files that hold the others. */
function requireTensors(
  path: string,
  source: TensorSource,
  locations: SourceCheckpointInput["locations"],
): void {
  const infos = locations.values().map(({ tensor }) => ({ tensor, file: source.info(tensor)?.file }))
    .toArray();
  const missing = infos.find(({ file }) => file === undefined);
  if (!missing) return;
  const files = [...new Set(infos.flatMap(({ file }) => file ?? []))];
  const named = files.slice(0, MAX_NAMED).map((name) => `"${name}"`).join(", ");
  const more = files.length > MAX_NAMED ? ` and ${files.length - MAX_NAMED} more files` : "";
  const where = files.length > 0 ? named + more : `the ${source.format} files of "${basename(path)}"`;
  throw new OatmillError(
    "invalid_checkpoint",
    `Cannot use ${where}: tensor "${missing.tensor.slice(0, 200)}" is missing`,
  );
}

function checkShapes(
  source: TensorSource,
  { tensor, tensorShape, times, shape, rowFactors }: WeightLocation,
): void {
  checkShape(source, tensor, tensorShape);
  if (rowFactors) checkShape(source, rowFactors, [shape[0]]);
  if (!times) return;
  const inner = tensorShape[1];
  checkShape(source, times.tensor, times.transposed ? [shape[1], inner] : [inner, shape[1]]);
}

function checkShape(source: TensorSource, tensor: string, wanted: readonly number[]): void {
  const info = source.info(tensor);
  if (!info) throw new OatmillError("invalid_checkpoint", `Cannot find tensor "${tensor}": it is missing`);
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
