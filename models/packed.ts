/**
 * A model in kernel layout, wherever its bytes come from: an artifact folder (formats/artifact.ts) or a checkpoint that is
 * packed while it is loaded (pack_dense.ts). The engine reads nothing else.
 */
import type { ImageProcessorConfig } from "./checkpoint.ts";
import type { TensorEntry } from "./formats/artifact_header.ts";
import type { ModelSpec } from "./spec.ts";

export interface PackedModel {
  readonly name: string;
  readonly spec: ModelSpec;
  /** preprocessor_config.json of a model that reads images; absent or null: none. */
  readonly imageProcessor?: ImageProcessorConfig | null;
  readonly blockChunks: number;
  readonly tensors: readonly TensorEntry[];
  /** Fills every tensor, in order; `destination` gives the bytes to fill (in WASM memory: shared). */
  load(destination: (entry: TensorEntry) => Uint8Array): Promise<void>;
  /** Set when the same bytes stand ready in a file that needs no check: then several threads may read it instead. */
  readonly file?: PackedFile | null;
}

/** Packed tensors in a file, each at its entry's offset. */
export interface PackedFile {
  readonly path: string;
  /** Where offset 0 lies in the file. */
  readonly dataStart: number;
  /** To be called when all is read. @throws {OatmillError} invalid_artifact when the file was changed meanwhile */
  confirm(): Promise<void>;
}
