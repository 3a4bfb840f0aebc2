/**
 * Where everything lies in the engine's shared WebAssembly memories, one for each segment of the model (segments.ts): plain
 * numbers, computed once on the main thread and posted to every worker.
 */
import { OatmillError } from "../errors.ts";
import type { PackedModel } from "../models/packed.ts";
import type { Plan } from "../models/plan.ts";
import { blockSpec } from "../models/spec.ts";
import {
  kvBlockBytes,
  mapSegment,
  type Part,
  readingOrder,
  roundUp,
  type SegmentMap,
  type SegmentOptions,
} from "./segment_map.ts";
import { cutIntoRuns, type ItemRun, ownersOf, type PlanItems, planItems } from "./segments.ts";

/** Largest WebAssembly memory with 32-bit addresses. */
export const MAX_MEMORY_BYTES = 2 ** 32 - 65536;

/** For messages. */
export const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

export interface MemoryMap {
  readonly segments: readonly SegmentMap[];
  /** Segment of each operation of the plan's body. */
  readonly body: readonly number[];
  /** Segment of the head's operations, with the logits. */
  readonly head: number;
}

export interface MapOptions extends SegmentOptions {
  /** Most bytes of one memory; default: what 32-bit addresses reach. */
  readonly memoryLimitBytes?: number;
}

/** Items `begin .. end - 1` with the tensors that they own. */
function partOf(model: PackedModel, plan: Plan, items: PlanItems, { begin, end }: ItemRun): Part {
  const inside = (item: number) => item >= begin && item < end;
  const ops = [...plan.body, ...plan.head], itemOf = [...items.body, ...items.head];
  const owners = ownersOf(ops, itemOf);
  return {
    ops: ops.filter((_, i) => inside(itemOf[i])),
    tensors: model.tensors.filter(({ name }) => inside(owners.get(name) ?? 0)), // load() fills unused ones too
    blocks: Array.from({ length: model.spec.blocks }, (_, i) => i).filter((i) => inside(i + 1)),
  };
}

/** Bytes that each item takes wherever it lies: its tensors and KV pools. */
function itemCosts(model: PackedModel, plan: Plan, items: PlanItems, o: MapOptions): number[] {
  const pools = (block: number) => {
    const { k, v } = kvBlockBytes(o.kvFormat, blockSpec(model.spec, block).attention);
    return roundUp(o.kvBlocks * k, 64) + roundUp(o.kvBlocks * v, 64);
  };
  return Array.from({ length: items.count }, (_, begin) => {
    const { ops, tensors, blocks } = partOf(model, plan, items, { begin, end: begin + 1 });
    const weights = readingOrder(tensors, ops)
      .reduce((n, group) => n + roundUp(group.reduce((m, e) => m + e.bytes, 0), 64), 0);
    return blocks.reduce((bytes, block) => bytes + pools(block), weights);
  });
}

/**
 * Lays out one memory when it can hold everything, otherwise as few as possible, about equally full.
 * @throws {OatmillError} too_large when a memory cannot hold even one transformer block, the embedding or the head
 */
export function mapMemory(model: PackedModel, plan: Plan, o: MapOptions): MemoryMap {
  const limit = Math.min(o.memoryLimitBytes ?? MAX_MEMORY_BYTES, MAX_MEMORY_BYTES);
  const items = planItems(plan, model.spec.blocks);
  const whole = mapSegment(model, plan, partOf(model, plan, items, { begin: 0, end: items.count }), o);
  if (whole.bytes <= limit) return { segments: [whole], body: items.body.map(() => 0), head: 0 };

  const costs = itemCosts(model, plan, items, o);
  const rest = whole.bytes - costs.reduce((a, b) => a + b, 0); // buffers, tables: at most this in every memory
  const runs = cutIntoRuns(costs, limit - rest);
  if (runs === null) {
    const most = Math.max(...costs) + rest;
    throw new OatmillError(
      "too_large",
      `Model "${model.name}" needs ${gibibytes(most)} of memory for one of its parts, the limit is ` +
        `${gibibytes(limit)}: use a higher rate or int4 values`,
    );
  }
  const segmentOf = (item: number) => runs.findIndex(({ end }) => item < end);
  return {
    segments: runs.map((run) => mapSegment(model, plan, partOf(model, plan, items, run), o)),
    body: items.body.map(segmentOf),
    head: segmentOf(items.head[0]),
  };
}
