/** A tensor that a graph reads or answers; no strings. */
export interface GraphTensor {
  /** As ONNX Runtime names types: `float32`, `int64`, `bool`, ... */
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView<ArrayBuffer>;
}
export type GraphTensors = Readonly<Record<string, GraphTensor>>;
