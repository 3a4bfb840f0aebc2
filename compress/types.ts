/** What compression is asked for and what it reports. */
import type { RecipeInput } from "../models/recipe.ts";
import type { AnyHeader } from "../models/formats/graph_artifact.ts";

export type CompressPhase =
  | "pull"
  | "read"
  | "sample"
  | "calibrate"
  | "allocate"
  | "compress"
  | "write"
  | "evaluate";

export interface CompressProgress {
  readonly phase: CompressPhase;
  /** Steps done and to do in this phase (blocks, sequences, ...). */
  readonly done: number;
  readonly total: number;
  readonly message?: string;
  /** Mean relative layer error so far. */
  readonly error?: number;
}

export interface CompressOptions {
  /** Model folder, .gguf or .onnx file. */
  readonly source: string;
  /** Artifact folder to create (must not exist). */
  readonly out: string;
  readonly name?: string;
  readonly recipe: RecipeInput;
  readonly threads?: number;
  /**
   * Bytes of what is kept between passes (hidden states, statistics) that stay in memory; the rest goes to files beside
   * `out`. Default: a quarter of the machine's memory, at most 1 GiB.
   */
  readonly workMemoryBytes?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (p: CompressProgress) => void;
}

export interface CompressResult {
  readonly artifact: string;
  readonly header: AnyHeader;
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** Seconds spent in each phase. */
  readonly phases: Partial<Record<CompressPhase, number>>;
}
