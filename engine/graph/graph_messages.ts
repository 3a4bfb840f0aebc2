/** What the threads of a graph and its owner say to each other. */
import type { ErrorCode } from "../../errors.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import type { LayersInit } from "./layer_team.ts";

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
