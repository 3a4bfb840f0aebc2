/** What the engine's main-thread handle and its workers say to each other. */
import type { ActivationEncoding } from "../kernels/abi.ts";
import type { ImageRows } from "../models/image_input.ts";
import type { Plan } from "../models/plan.ts";
import type { ModelSpec } from "../models/spec.ts";
import type { AdapterUse } from "./adapters.ts";
import type { MemoryMap } from "./memory_map.ts";
import type { SchedulerOptions } from "./scheduler.ts";
import type { GenerateEvent, GenerateRequest } from "./types.ts";
import type { ReadJob } from "./weights_reader.ts";
import type { ErrorCode } from "../errors.ts";

/** Everything a compute thread needs. */
export interface InitMessage {
  readonly type: "init";
  readonly modules: Map<string, WebAssembly.Module>;
  /** By segment. */
  readonly memories: readonly WebAssembly.Memory[];
  readonly encoding: ActivationEncoding;
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly thread: number;
  readonly threads: number;
  readonly scheduler: SchedulerOptions;
  readonly speculation: boolean;
  /** Requests that wait longer for their first step end with queue_timeout. */
  readonly maxWaitMs: number;
  /** Of the engine's {@linkcode SharedStats}; the leader writes. */
  readonly stats: SharedArrayBuffer;
}

export type WorkKind = "generate" | "score" | "logits" | "encode";

/** A request, and for those that measure which of its first `rows` positions: `from` and all after it. */
export interface WorkRequest extends Omit<GenerateRequest, "grammar" | "adapter"> {
  readonly adapter?: AdapterUse | null;
  /** Of a {@linkcode MaskMailbox}: which tokens may come. */
  readonly masks?: SharedArrayBuffer;
  /** Of each token; absent: 0. */
  readonly types?: readonly number[];
  /** In place of tokens: `promptIds` are as many zeros. */
  readonly image?: ImageRows;
  readonly measure?: { readonly rows: number; readonly from: number };
}

/** What a thread is told until it computes; it answers each with `done` or `failed`. */
export type ToWorker =
  | { readonly type: "read"; readonly job: ReadJob }
  | InitMessage;

export type ToLeader =
  | { readonly type: "add"; readonly id: number; readonly kind: WorkKind; readonly request: WorkRequest }
  | { readonly type: "cancel"; readonly id: number }
  /** Asks to hear when nothing uses the adapter in a slot any more; no request that does will follow. */
  | { readonly type: "drop"; readonly slot: number }
  | { readonly type: "close" };

/** One thing that happened to one request. */
export type WorkEvent =
  | { readonly id: number; readonly event: GenerateEvent }
  | { readonly id: number; readonly values: Float32Array }
  | { readonly id: number; readonly error: { readonly code: ErrorCode; readonly message: string } };

export type FromWorker =
  /** It listens; said once. */
  | { readonly type: "up" }
  | { readonly type: "done"; readonly ms: number }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "events"; readonly events: readonly WorkEvent[] }
  | { readonly type: "dropped"; readonly slot: number }
  | { readonly type: "closed" };
