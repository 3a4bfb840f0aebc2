/** What a recovery is given, says on its way, and reports. */
import type { Checkpoint } from "../../models/checkpoint.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import type { Journal } from "../resume/journal.ts";
import type { WorkSpace } from "../work_space.ts";
import type { RecoverKind, RecoverOptions } from "./options.ts";
import type { TrainableModel } from "./parameters.ts";

/** Who does jobs. */
export type JobRunner = Pick<LinalgPool, "run" | "memoryBytes" | "threads" | "concurrent">;

export interface RecoverRun {
  /** Trained in place: has the best parameters when it ends. */
  readonly model: TrainableModel;
  /** The dense model it was made from: its answers are the targets. */
  readonly checkpoint: Checkpoint;
  /** Token ids, all of one length. */
  readonly sequences: readonly Int32Array[];
  /** Of the same length, never trained on: they say what is best and when to end. */
  readonly heldOut: readonly Int32Array[];
  readonly options: RecoverOptions;
  readonly pool: LinalgPool;
  readonly space: WorkSpace;
  /** Keeps the state, for a run with the same texts, options and threads that goes on from there. */
  readonly journal: Journal;
  /** Of the time that keeping it may take; default: half a percent. Infinity: it is kept after every step. */
  readonly costShare?: number;
  /** Ends it soon; the best so far stays, and the report says `cancelled`. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RecoverProgress) => void;
}

export interface RecoverProgress {
  /** targets: the dense model goes over the texts. */
  readonly phase: "targets" | "train";
  /** Tokens of this phase. */
  readonly done: number;
  readonly total: number;
  /** With blockwise: the block that is trained. */
  readonly block: number | null;
  /** Of the last step, per token; null before the first one. */
  readonly loss: number | null;
  /** Best on the held-out sequences, per token. */
  readonly heldOutLoss: number | null;
  /** Of this phase in this run. */
  readonly tokensPerSecond: number;
  readonly etaSeconds: number;
}

/** tokens: all were trained on. early: held-out loss fell no more. */
export type StopReason = "tokens" | "early" | "cancelled";

export interface RecoverReport {
  readonly kind: RecoverKind;
  /** Trained on; with blockwise by the mean block. */
  readonly tokens: number;
  readonly steps: number;
  /** Of this run and of those it goes on from. */
  readonly seconds: number;
  readonly tokensPerSecond: number;
  /** On the held-out sequences, per token: KL in nats; with blockwise the mean relative squared error of the blocks. */
  readonly loss: { readonly before: number; readonly after: number };
  readonly stopped: StopReason;
}
