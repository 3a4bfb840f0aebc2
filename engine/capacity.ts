/** How much KV cache an engine gets and where everything lies, within its memories' limit and the machine's memory. */
import { OatmillError } from "../errors.ts";
import { KV_BLOCK_TOKENS } from "../kernels/abi.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import type { PackedModel } from "../models/packed.ts";
import type { Plan } from "../models/plan.ts";
import { blockSpecs } from "../models/spec.ts";
import { gibibytes, mapMemory, type MemoryMap } from "./memory_map.ts";
import { kvBlockBytes } from "./segment_map.ts";

/** int8 beside quantised weights: a quarter of the bytes, perplexity as with f32 (SmolLM2, WikiText-2: -0.03 %); f32 beside f32 weights, the path that equals its references. */
export const defaultKvFormat = ({ tensors }: PackedModel): KvFormat =>
  tensors.every(({ format }) => format.kind === "f32" || format.kind === "vector") ? "f32" : "int8";

/** Default bound on the KV pools of all blocks; they are reserved, and touched only as far as they are used. */
const DEFAULT_KV_BYTES = 1 << 30;
/** Where that bound is less than one context, the pools hold one: all of it when it was asked for, else up to so many tokens. */
const DEFAULT_KV_CONTEXT = 4096;
/** A default pool shrinks to fit, but never below this. */
const LEAST_KV_TOKENS = 512;

export interface CapacityOptions {
  readonly threads: number;
  readonly maxRows: number;
  readonly maxSequences: number;
  /** Cap on the context window; default: the model's. */
  readonly contextLength?: number;
  /** Tokens of KV cache over all sequences; default: what is useful and fits. */
  readonly kvTokens?: number;
  readonly kvFormat: KvFormat;
  /** Most bytes of one memory. */
  readonly memoryLimitBytes?: number;
  /** Bytes that the machine can still give; null when unknown. */
  readonly availableBytes: number | null;
}

export interface Capacity {
  readonly map: MemoryMap;
  readonly memoryBytes: number;
  /** Tokens that one sequence may have: the model's window, or what the KV pools hold. */
  readonly contextLength: number;
  readonly kvBlocks: number;
}

/**
 * Plans an engine's memories. A KV cache whose size was not asked for is halved until everything fits.
 * @throws {OatmillError} too_large when a memory cannot hold a part of the model, insufficient_memory when the machine
 * cannot hold it all
 */
export function planCapacity(model: PackedModel, plan: Plan, o: CapacityOptions): Capacity {
  if (o.kvTokens !== undefined) return capacityFor(o.kvTokens, model, plan, o);
  const most = defaultKvTokens(model, o);
  for (let kvTokens = most;; kvTokens = Math.max(LEAST_KV_TOKENS, kvTokens / 2)) {
    try {
      return capacityFor(kvTokens, model, plan, o);
    } catch (error) {
      if (!(error instanceof OatmillError) || kvTokens <= LEAST_KV_TOKENS) throw error;
    }
  }
}

function capacityFor(kvTokens: number, model: PackedModel, plan: Plan, o: CapacityOptions): Capacity {
  const { threads, maxRows, maxSequences, kvFormat, memoryLimitBytes } = o;
  const whole = Math.floor(kvTokens / KV_BLOCK_TOKENS);
  const contextLength = Math.min(contextCap(model, o), whole * KV_BLOCK_TOKENS);
  const perSequence = Math.ceil(contextLength / KV_BLOCK_TOKENS);
  const kvBlocks = Math.max(perSequence, Math.min(whole, maxSequences * perSequence));
  const map = mapMemory(model, plan, {
    threads,
    maxRows,
    maxSequences,
    kvBlocks,
    contextLength,
    kvFormat,
    memoryLimitBytes,
  });
  const memoryBytes = map.segments.reduce((n, segment) => n + segment.bytes, 0);
  if (o.availableBytes !== null && memoryBytes > o.availableBytes) {
    throw new OatmillError(
      "insufficient_memory",
      `Model "${model.name}" needs ${gibibytes(memoryBytes)} of memory, the machine has ` +
        `${gibibytes(o.availableBytes)} left: use a higher rate or int4 values`,
    );
  }
  return { map, memoryBytes, contextLength, kvBlocks };
}

const contextCap = ({ spec }: PackedModel, o: CapacityOptions): number =>
  Math.min(o.contextLength ?? spec.contextLength, spec.contextLength);

function defaultKvTokens(model: PackedModel, o: CapacityOptions): number {
  const kvBytes = blockSpecs(model.spec)
    .map(({ attention }) => kvBlockBytes(o.kvFormat, attention))
    .reduce((bytes, { k, v }) => bytes + k + v, 0);
  const bounded = Math.floor(DEFAULT_KV_BYTES / kvBytes) * KV_BLOCK_TOKENS;
  const context = contextCap(model, o);
  const useful = o.maxSequences * (context + KV_BLOCK_TOKENS);
  return Math.max(
    KV_BLOCK_TOKENS,
    Math.min(useful, Math.max(bounded, Math.min(context, o.contextLength ?? DEFAULT_KV_CONTEXT))),
  );
}

/** What the machine can still give without swapping; null where the process may not ask (`--allow-sys=systemMemoryInfo`). */
export function availableMemory(): number | null {
  const permission = Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" });
  return permission.state === "granted" ? Deno.systemMemoryInfo().available : null;
}
