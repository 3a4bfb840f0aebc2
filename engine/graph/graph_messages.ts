/** What the threads of a graph and its owner say to each other. */
import type { ErrorCode } from "../../errors.ts";
import type { LayersInit } from "./layer_team.ts";

/** A tensor that a graph reads or answers; no strings. */
export interface GraphTensor {
  /** As ONNX Runtime names types: `float32`, `int64`, `bool`, ... */
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView<ArrayBuffer>;
}
export type GraphTensors = Readonly<Record<string, GraphTensor>>;

export type ToGraphThread =
  | {
    readonly type: "init";
    readonly layers: LayersInit;
    /** The graph with `Linear` nodes, for the leading thread. */
    readonly graph: Uint8Array<ArrayBuffer> | null;
  }
  | { readonly type: "run"; readonly id: number; readonly feeds: GraphTensors }
  | { readonly type: "close" };

export type FromGraphThread =
  | { readonly type: "up" }
  | { readonly type: "ready" }
  | { readonly type: "result"; readonly id: number; readonly outputs: GraphTensors }
  | {
    readonly type: "error";
    /** Null while it starts. */
    readonly id: number | null;
    readonly code: ErrorCode | null;
    readonly message: string;
  }
  | { readonly type: "closed" };
