/** Tensors by their name in the file: what safetensors folders and GGUF files have in common. */

/** What a header says of a tensor; where its bytes lie is the source's business. */
export interface TensorInfo {
  readonly shape: readonly number[];
  /** Type as the format calls it: "BF16", "Q4_K". */
  readonly type: string;
  /** Plain name of the file that holds it, for messages. */
  readonly file: string;
}

export interface TensorSource {
  readonly format: "safetensors" | "gguf";
  /** Bytes of all tensors as stored. */
  readonly tensorBytes: number;
  /** undefined: no such tensor. */
  info(name: string): TensorInfo | undefined;
  /**
   * Elements `first` to `first + count - 1` in row-major order, as float32. GGUF types in blocks allow whole rows only.
   * @throws {OatmillError} unsupported_format (type), invalid_checkpoint (missing)
   */
  readFloat32(name: string, first: number, count: number): Promise<Float32Array<ArrayBuffer>>;
  close(): void;
}
