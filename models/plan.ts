/**
 * The forward pass as a flat list of operations, built once from a packed model (build_plan.ts): data, no addresses.
 * engine/executor.ts binds the names to memory and interprets the list on every thread.
 *
 * Buffers are token-major f32 `[rows, stride]`; tiles are prepared inputs of linear layers (kernels/abi.ts). `sync` is
 * where every thread must have finished what stands before it.
 */
import type { Shape2 } from "../kernels/layout.ts";
import type { Activation, ExpertsSpec } from "./spec.ts";

export interface NormRef {
  readonly weight: string;
  readonly bias: string | null;
}

/** Columns of a buffer from `column` on: outputs of one kernel call lie side by side in one buffer. */
export interface BufferRef {
  readonly buffer: string;
  readonly column: number;
}

/** What the consuming weights need: quantised bytes (view A), in both views for windows, or plain floats. */
export type TileKind = "q8" | "views" | "f32";

export type PlanOp =
  /** Rows of a table by token, by position or by type of token, times a factor, written or added. */
  | {
    readonly op: "embed";
    readonly table: string;
    readonly by: "token" | "position" | "type";
    readonly factor: number;
    readonly out: BufferRef;
    readonly accumulate: boolean;
  }
  /**
   * Activates or normalises (when asked), scales columns and writes the tile in every kind its consumers read. With an
   * activation the input is activation(gate) * input, or activation(input) without a gate.
   */
  | {
    readonly op: "prepare";
    readonly input: BufferRef;
    readonly activation: { readonly kind: Activation; readonly gate: BufferRef | null } | null;
    readonly norm: NormRef | null;
    /** Inside of `experts`: the tile's rows are those of the input that chose the expert, without anything else done to them. */
    readonly chosen?: true;
    readonly scale: string | null;
    readonly cols: number;
    readonly tile: string;
    readonly kinds: readonly TileKind[];
  }
  /** Normalises rows that become no tile: an encoder's output, sums, what is added to them. In place too. */
  | {
    readonly op: "norm";
    readonly input: BufferRef;
    readonly norm: NormRef;
    readonly out: BufferRef;
    readonly accumulate: boolean;
  }
  | { readonly op: "copy"; readonly input: BufferRef; readonly out: BufferRef; readonly cols: number }
  /** Normalises each head of q or k by itself (rmsnorm), in place. */
  | { readonly op: "norm_heads"; readonly x: BufferRef; readonly heads: number; readonly weight: string }
  /**
   * One or more weights of one format and input, which lie one after the other in memory, so that they are one long stream:
   * their outputs follow each other too, each padded to whole groups of rows.
   */
  | {
    readonly op: "linear";
    readonly weights: readonly string[];
    /** One for each weight, or none at all. */
    readonly biases: readonly string[];
    readonly tile: string;
    readonly out: BufferRef;
    readonly accumulate: boolean;
  }
  | { readonly op: "rope"; readonly block: number; readonly x: BufferRef; readonly heads: number }
  | { readonly op: "kv_write"; readonly block: number; readonly k: BufferRef; readonly v: BufferRef }
  | { readonly op: "attention"; readonly block: number; readonly q: BufferRef; readonly out: BufferRef }
  /**
   * Normalises rows to `out` and scores their experts: `shares` of a row are 0 but for the `perToken` best, whose softmax they
   * are.
   */
  | {
    readonly op: "route";
    readonly input: BufferRef;
    readonly norm: NormRef;
    readonly out: BufferRef;
    /** An f32 layer `[experts, hidden]`. */
    readonly router: string;
    readonly shares: BufferRef;
    readonly experts: ExpertsSpec;
  }
  /** Each expert's own operations, over the rows that have a share in it: row i of their buffers and tiles is the i-th of those. */
  | { readonly op: "experts"; readonly shares: BufferRef; readonly each: readonly (readonly PlanOp[])[] }
  /** Inside of `experts`: adds row i times its share to the row that it stands for. */
  | { readonly op: "add_chosen"; readonly input: BufferRef; readonly out: BufferRef; readonly cols: number }
  /**
   * In the rows of sequences with a LoRA adapter: A x for the layers of one input, left as tiles for `adapt_out`. The x of
   * `input` is what `prepare` reads, before any scale. Other rows are passed over, and so are steps without such rows.
   */
  | {
    readonly op: "adapt_in";
    readonly block: number;
    readonly input: BufferRef;
    readonly activation: (PlanOp & { op: "prepare" })["activation"];
    readonly norm: NormRef | null;
    readonly cols: number;
    /** Indices into {@linkcode PlannedAdapters.layers}. */
    readonly layers: readonly number[];
  }
  /** Adds B (A x) to what the layers have written, in the same rows. */
  | {
    readonly op: "adapt_out";
    readonly block: number;
    readonly layers: readonly { readonly index: number; readonly out: BufferRef }[];
  }
  /** x = cap tanh(x / cap) */
  | { readonly op: "soft_cap"; readonly x: BufferRef; readonly cols: number; readonly cap: number }
  /**
   * `prepared`: all that the other threads wait for is a tile, so threads that made their own need not; `adapted`: only what
   * adapters add stands before it.
   */
  | { readonly op: "sync"; readonly prepared?: boolean; readonly adapted?: boolean };

/** What LoRA adapters can add to. */
export interface PlannedAdapters {
  /** How A and B are stored: as the model's own exact or quantised weights are. */
  readonly format: { readonly kind: "f32" | "q8" };
  /** The layers by number; none in an encoder. */
  readonly layers: readonly AdaptableLayer[];
}
export interface AdaptableLayer {
  /** "block.3.q" */
  readonly name: string;
  readonly shape: Shape2;
}

export interface Plan {
  /** From token ids to the hidden state of every row. */
  readonly body: readonly PlanOp[];
  /** From (gathered) hidden rows in buffer `headIn` to the output: final norm and, in a decoder, the head. */
  readonly head: readonly PlanOp[];
  /** Where the head writes rows: `logits`, or an encoder's `states`. */
  readonly output: { readonly buffer: "logits" | "states"; readonly cols: number };
  /** Columns of each buffer, not padded. */
  readonly buffers: Readonly<Record<string, number>>;
  /** Columns of each tile, and the kinds it must hold. */
  readonly tiles: Readonly<Record<string, { readonly cols: number; readonly kinds: readonly TileKind[] }>>;
  /** Kernel modules that the weights need. */
  readonly modules: readonly string[];
  readonly adapters: PlannedAdapters;
}
