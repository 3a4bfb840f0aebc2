/**
 * Memory of a worker that its jobs use again and again: ONNX Runtime reads no shared memory, so a block's weights are
 * copied for each use, and new arrays of that size would be most of the garbage there is.
 */
import type { Tensor } from "../linalg/runtime.ts";

export class Buffers {
  readonly #known = new Map<string, Float32Array<ArrayBuffer>>();

  /** A tensor with whatever values it had last; of one name and size there is one. */
  tensor(name: string, shape: readonly number[]): Tensor {
    const length = shape.reduce((a, b) => a * b, 1), key = `${name} ${length}`;
    const data = this.#known.get(key) ?? new Float32Array(length);
    this.#known.set(key, data);
    return { data, shape };
  }

  /** The same with these values. */
  copy(name: string, values: Float32Array, shape: readonly number[] = [values.length]): Tensor {
    const tensor = this.tensor(name, shape);
    tensor.data.set(values);
    return tensor;
  }
}
