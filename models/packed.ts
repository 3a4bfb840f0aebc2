/**
 * A model in kernel layout, wherever its bytes come from: an artifact folder (formats/artifact.ts) or a checkpoint that is
 * packed while it is loaded (pack_dense.ts). The engine reads nothing else.
 */
import type { TensorEntry } from "./formats/artifact_header.ts";
import type { ModelSpec } from "./spec.ts";

export interface PackedModel {
  readonly name: string;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly tensors: readonly TensorEntry[];
  /** Fills every tensor, in order; `destination` gives the bytes to fill (in WASM memory: shared). */
  load(destination: (entry: TensorEntry) => Uint8Array): Promise<void>;
}
