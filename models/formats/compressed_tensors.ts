/**
 * Sparse weights as compressed-tensors writes them (llmcompressor; formats `sparse-bitmask` and `sparse-24-bitmask`). In
 * place of `NAME.weight` stand
 *
 * | tensor | shape | holds |
 * |---|---|---|
 * | `NAME.compressed` | `[kept]`, or `[rows, columns / 2]` of 2:4 | the kept values, row after row, in any float type |
 * | `NAME.bitmask` | `[rows, ceil(columns / 8)]`, U8 | 1 where a value is kept; a byte's lowest bit is its first column |
 * | `NAME.shape` | `[2]` or `[2, 1]`, I64 | rows, columns |
 * | `NAME.row_offsets` | `[rows]`, I64 (not with 2:4) | values before each row |
 *
 * and of a vector, which early versions compress as well, the same without `rows`. Both formats are read alike: what the
 * mask says counts, and everything else must agree with it.
 */
import { OatmillError } from "../../errors.ts";
import type { TensorInfo, TensorSource } from "../tensor_source.ts";
import type { SafetensorsFolder } from "./safetensors_folder.ts";

const MASK = ".bitmask";
const WEIGHT = ".weight";

interface SparseTensor {
  /** NAME, without `.weight`. */
  readonly prefix: string;
  /** `[rows, columns]`, or `[columns]`, which is one row. */
  readonly shape: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly file: string;
  /** Stored values; which of them belong to which row the mask says. */
  readonly values: number;
  readonly type: string;
}

/** A folder whose sparse tensors read as the dense ones they stand for. */
export class CompressedTensors implements TensorSource {
  readonly format = "safetensors";
  readonly #base: SafetensorsFolder;
  readonly #sparse: ReadonlyMap<string, SparseTensor>;

  private constructor(base: SafetensorsFolder, sparse: ReadonlyMap<string, SparseTensor>) {
    this.#base = base;
    this.#sparse = sparse;
  }

  /**
   * @returns the folder itself when it has no sparse tensors
   * @throws {OatmillError} invalid_checkpoint when the parts of a sparse tensor disagree, unsupported_format (quantised)
   */
  static async over(base: SafetensorsFolder): Promise<TensorSource> {
    const sparse = new Map<string, SparseTensor>();
    for (const name of base.names()) {
      if (!name.endsWith(MASK)) continue;
      const tensor = await describe(base, name.slice(0, -MASK.length));
      sparse.set(tensor.prefix + WEIGHT, tensor);
    }
    return sparse.size > 0 ? new CompressedTensors(base, sparse) : base;
  }

  get tensorBytes(): number {
    return this.#base.tensorBytes;
  }

  info(name: string): TensorInfo | undefined {
    const sparse = this.#sparse.get(name);
    return sparse ? { shape: sparse.shape, type: sparse.type, file: sparse.file } : this.#base.info(name);
  }

  async readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>> {
    const sparse = this.#sparse.get(name);
    if (!sparse) return await this.#base.readFloat32(name, first, count);
    const { rows, columns, prefix } = sparse;
    if (first % columns !== 0 || count % columns !== 0 || first + count > rows * columns) {
      throw new RangeError(`Elements ${first} to ${first + count} are no whole rows of tensor "${name}"`);
    }
    const mask = new Uint8Array(rows * bytesPerRow(columns));
    await this.#base.readBytes(prefix + MASK, mask);
    const starts = rowStarts(sparse, mask);
    await this.#checkOffsets(sparse, starts);
    const from = first / columns, to = from + count / columns;
    const values = await this.#base.readFloat32(
      `${prefix}.compressed`,
      starts[from],
      starts[to] - starts[from],
    );
    return scatter(values, mask.subarray(from * bytesPerRow(columns)), { rows: to - from, columns });
  }

  close(): void {
    this.#base.close();
  }

  /** Not needed to read the values; a file that contradicts itself is damaged all the same. */
  async #checkOffsets({ prefix, shape, rows, file }: SparseTensor, starts: Float64Array): Promise<void> {
    const name = `${prefix}.row_offsets`, info = this.#base.info(name);
    if (!info) return;
    const wanted = String(shape.slice(0, -1));
    if (info.type !== "I64" || String(info.shape) !== wanted) {
      throw invalid(name, file, `it is ${info.type} [${info.shape}], must be I64 [${wanted}]`);
    }
    const offsets = await readInt64(this.#base, name, rows);
    for (let row = 0; row < rows; row++) {
      if (offsets[row] !== BigInt(starts[row])) {
        throw invalid(name, file, `row ${row} is at ${offsets[row]}, the bitmask says ${starts[row]}`);
      }
    }
  }
}

const bytesPerRow = (columns: number): number => Math.ceil(columns / 8);

function invalid(name: string, file: string, why: string): OatmillError {
  return new OatmillError("invalid_checkpoint", `Cannot read sparse tensor "${name}" of "${file}": ${why}`);
}

/** What the headers and `.shape` say of one tensor, checked against each other; nothing is allocated by what they claim. */
async function describe(base: SafetensorsFolder, prefix: string): Promise<SparseTensor> {
  const mask = base.info(prefix + MASK)!, values = base.info(`${prefix}.compressed`);
  const { file } = mask, fail = (why: string) => invalid(prefix, file, why);
  if (!values) throw fail('its ".compressed" values are missing');
  if (base.info(`${prefix}.weight_scale`)) {
    throw new OatmillError(
      "unsupported_format",
      `Cannot read sparse tensor "${prefix}" of "${file}": it is quantised as well, wanted are float values`,
    );
  }
  const shape = await readShape(base, prefix, file), columns = shape.at(-1)!;
  const wanted = String([...shape.slice(0, -1), bytesPerRow(columns)]);
  if (mask.type !== "U8" || shape.some((n) => n < 0) || String(mask.shape) !== wanted) {
    throw fail(`its bitmask is ${mask.type} [${mask.shape}], shape [${shape}] needs U8 [${wanted}]`);
  }
  const kept = values.shape.reduce((product, n) => product * n, 1);
  const rows = shape.length === 2 ? shape[0] : 1;
  return { prefix, shape, rows, columns, file, values: kept, type: values.type };
}

async function readShape(base: SafetensorsFolder, prefix: string, file: string): Promise<number[]> {
  const info = base.info(`${prefix}.shape`);
  if (info?.type !== "I64" || !["1", "2", "2,1"].includes(String(info.shape))) {
    throw invalid(prefix, file, 'its ".shape" must be I64 [2], or [1] of a vector');
  }
  return [...await readInt64(base, `${prefix}.shape`, info.shape[0])].map(Number);
}

async function readInt64(base: SafetensorsFolder, name: string, count: number): Promise<BigInt64Array> {
  const numbers = new BigInt64Array(count);
  await base.readBytes(name, new Uint8Array(numbers.buffer));
  return numbers;
}

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);

/**
 * Values before each row, and before the row after the last, `[rows + 1]`.
 * @throws {OatmillError} invalid_checkpoint when the mask counts others than there are
 */
function rowStarts(tensor: SparseTensor, mask: Uint8Array): Float64Array {
  const { rows, columns, prefix, file, values } = tensor;
  const starts = new Float64Array(rows + 1), stride = bytesPerRow(columns);
  const beyond = columns % 8 === 0 ? 0 : 256 - 2 ** (columns % 8); // bits of a row's last byte that are no columns
  for (let row = 0, at = 0; row < rows; row++) {
    let ones = 0;
    for (const end = at + stride; at < end; at++) ones += ONES[mask[at]];
    if (mask[at - 1] & beyond) {
      throw invalid(prefix + MASK, file, `row ${row} has bits beyond its ${columns} columns`);
    }
    starts[row + 1] = starts[row] + ones;
  }
  if (starts[rows] !== values) {
    throw invalid(prefix, file, `its bitmask has ${starts[rows]} ones, there are ${values} values`);
  }
  return starts;
}

/** @param mask of the rows, from its first byte on */
function scatter(
  values: Float32Array,
  mask: Uint8Array,
  { rows, columns }: { readonly rows: number; readonly columns: number },
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * columns), stride = bytesPerRow(columns);
  for (let row = 0, next = 0; row < rows; row++) {
    for (let c = 0; c < columns; c++) {
      if (mask[row * stride + (c >> 3)] >> (c & 7) & 1) out[row * columns + c] = values[next++];
    }
  }
  return out;
}
