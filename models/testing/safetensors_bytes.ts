/** Safetensors files in memory, and weights in the ways that sparse checkpoints hold them. */
import {
  type SafetensorsDtype,
  type SafetensorsEntry,
  safetensorsHeader,
  tensorBytes,
} from "../formats/safetensors_header.ts";

export interface TensorBytes {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A whole file. The bytes must be as many as type and shape say. */
export function safetensorsBytes(tensors: readonly TensorBytes[]): Uint8Array<ArrayBuffer> {
  let end = 0;
  const entries = tensors.map(({ name, dtype, shape, bytes }): SafetensorsEntry => {
    const begin = end;
    end += tensorBytes(dtype, shape);
    if (end - begin !== bytes.length) throw new RangeError(`${name} has ${bytes.length} bytes`);
    return { name, dtype, shape, begin, end };
  });
  const header = safetensorsHeader(entries), file = new Uint8Array(header.length + end);
  file.set(header);
  entries.forEach(({ begin }, i) => file.set(tensors[i].bytes, header.length + begin));
  return file;
}

export const float32Tensor = (
  name: string,
  shape: readonly number[],
  values: ArrayLike<number>,
): TensorBytes => ({ name, dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) });

const int64Tensor = (name: string, shape: readonly number[], values: readonly number[]): TensorBytes => ({
  name,
  dtype: "I64",
  shape,
  bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
});

/**
 * The tensors of format `sparse-bitmask` (formats/compressed_tensors.ts).
 * @param name without `.weight`
 * @param shape `[rows, columns]` or `[columns]`
 */
export function bitmaskTensors(
  name: string,
  shape: readonly number[],
  values: ArrayLike<number>,
): TensorBytes[] {
  const columns = shape.at(-1)!, rows = shape.length === 2 ? shape[0] : 1, stride = Math.ceil(columns / 8);
  const mask = new Uint8Array(rows * stride), kept: number[] = [], starts: number[] = [];
  for (let row = 0; row < rows; row++) {
    starts.push(kept.length);
    for (let c = 0; c < columns; c++) {
      const value = values[row * columns + c];
      if (value === 0) continue;
      mask[row * stride + (c >> 3)] |= 1 << (c & 7);
      kept.push(value);
    }
  }
  const outer = shape.slice(0, -1);
  return [
    int64Tensor(`${name}.shape`, [shape.length], shape),
    float32Tensor(`${name}.compressed`, [kept.length], kept),
    { name: `${name}.bitmask`, dtype: "U8", shape: [...outer, stride], bytes: mask },
    int64Tensor(`${name}.row_offsets`, outer, starts),
  ];
}

/** The tensors of format `sparse-24-bitmask`: every row has half of its columns. */
export function bitmask24Tensors(
  name: string,
  shape: readonly [number, number],
  values: ArrayLike<number>,
): TensorBytes[] {
  const [size, compressed, bitmask] = bitmaskTensors(name, shape, values);
  return [{ ...size, shape: [2, 1] }, { ...compressed, shape: [shape[0], shape[1] / 2] }, bitmask];
}
