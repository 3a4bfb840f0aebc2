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
  | "evaluate"
  | "recover";

export interface CompressProgress {
  readonly phase: CompressPhase;
  /** Steps done and to do in this phase (blocks, sequences, ...). */
  readonly done: number;
  readonly total: number;
  readonly message?: string;
  /** Mean relative layer error so far. */
  readonly error?: number;
  /** Of the dense model, once it is known. */
  readonly densePerplexity?: number;
  /** Of the last step of a recovery, per token. */
  readonly loss?: number;
  readonly tokensPerSecond?: number;
  /** To the end of a recovery. */
  readonly etaSeconds?: number;
}

/** A block in one of the passes over all of them. */
export interface BlockPlace {
  readonly pass: "outliers" | "measure" | "compress";
  readonly index: number;
}
/** What a run was at from one moment to another; steps of different blocks may take turns. */
export interface CompressStep {
  readonly phase: CompressPhase;
  readonly block: BlockPlace | null;
  /** Milliseconds since 1970. */
  readonly startMs: number;
  readonly endMs: number;
}

export interface CompressOptions {
  /** Model folder, .gguf or .onnx file. */
  readonly source: string;
  /** Artifact folder to create (must not exist). */
  readonly out: string;
  readonly name?: string;
  /**
   * Folder for all that is unfinished, on the disk of `out`: a run that is given it again, with the same source and
   * recipe, goes on where this one stopped, however it stopped, and makes the same artifact bit by bit. It stays behind
   * a success as well; the caller removes it. Default: one beside `out` that goes with the run.
   */
  readonly work?: string;
  readonly recipe: RecipeInput;
  /** The artifact's header names the recipe's texts without their folders: whose disk they are on is nobody's business. */
  readonly hidesFolders?: boolean;
  readonly threads?: number;
  /**
   * Bytes of what is kept between passes (hidden states, statistics) that stay in memory; the rest goes to files beside
   * `out`. Default: a quarter of the machine's memory, at most 1 GiB.
   */
  readonly workMemoryBytes?: number;
  readonly signal?: AbortSignal;
  /** Ends a recovery that is under way: the artifact gets the best parameters so far. */
  readonly stop?: AbortSignal;
  readonly onProgress?: (p: CompressProgress) => void;
  /** Hears of every step that took a millisecond or more, behind it. */
  readonly onStep?: (step: CompressStep) => void;
  /** Hears of an earlier run in `work` before anything is done. */
  readonly onResume?: (found: FoundWork) => void;
  /** Hears of every unit that is kept; what it throws ends the run there. */
  readonly onKept?: (unit: string) => void;
  /** Of the time, for copies of hidden states (resume/streams.ts); Infinity: at every block. */
  readonly copyShare?: number;
}

/** What became of an earlier run's work. */
export type FoundWork =
  | { readonly resumed: true; readonly why: null }
  /** It was deleted; `why` it could not serve. */
  | { readonly resumed: false; readonly why: string };

export interface CompressResult {
  readonly artifact: string;
  readonly header: AnyHeader;
  /** Of all runs. */
  readonly seconds: number;
  readonly peakRssBytes: number;
  /** Seconds spent in each phase. */
  readonly phases: Partial<Record<CompressPhase, number>>;
}
