/**
 * Which part of the model each memory holds. A model is a row of *items*: the embedding, the transformer blocks, the head;
 * a *segment* is a run of items that share a memory, and only the hidden state goes from one to the next. Pure planning.
 */
import type { Plan, PlanOp } from "../models/plan.ts";
import { blockOf, operandsOf } from "../models/plan_operands.ts";

/** Items `begin .. end - 1`. */
export interface ItemRun {
  readonly begin: number;
  readonly end: number;
}

/** The item of every operation: 0 the embedding, 1 + i block i, 1 + blocks the head. */
export interface PlanItems {
  readonly count: number;
  readonly body: readonly number[];
  readonly head: readonly number[];
}

/**
 * Finds each operation's item from the tensors and blocks that it names. One that names none (a rotation, an activation)
 * goes with the next that does; a `sync` with what stands before it. A head whose table another item owns (tied
 * embeddings) goes there.
 */
export function planItems(plan: Plan, blocks: number): PlanItems {
  const last = blocks + 1;
  const body: (number | null)[] = [];
  let outside = 0; // item of tensors that no block owns: the embedding's before the first block, the head's after it
  for (const op of plan.body) {
    const block = blockOf(op);
    if (block !== null) outside = last;
    body.push(block !== null ? block + 1 : operandsOf(op).tensors.length > 0 ? outside : null);
  }
  let next: number | null = null;
  for (let i = body.length - 1; i >= 0; i--) next = plan.body[i].op === "sync" ? next : body[i] ??= next;
  const settled: number[] = [];
  for (const item of body) settled.push(item ?? settled.at(-1) ?? 0);

  const owner = ownersOf(plan.body, settled);
  const shared = plan.head.flatMap((op) => operandsOf(op).tensors).find((t) => owner.has(t));
  const headItem = shared === undefined ? last : owner.get(shared)!;
  return { count: blocks + 2, body: settled, head: plan.head.map(() => headItem) };
}

/** The item that holds each tensor: that of the first operation which reads it. */
export function ownersOf(ops: readonly PlanOp[], items: readonly number[]): Map<string, number> {
  const owner = new Map<string, number>();
  ops.forEach((op, i) => {
    for (const t of operandsOf(op).tensors) if (!owner.has(t)) owner.set(t, items[i]);
  });
  return owner;
}

/** Runs of items from the left, each as long as `capacity` allows; null when one item alone is larger. */
function fill(costs: readonly number[], capacity: number): ItemRun[] | null {
  const runs: ItemRun[] = [];
  let begin = 0, sum = 0;
  for (const [i, cost] of costs.entries()) {
    if (cost > capacity) return null;
    if (sum + cost > capacity) {
      runs.push({ begin, end: i });
      begin = i;
      sum = 0;
    }
    sum += cost;
  }
  return [...runs, { begin, end: costs.length }];
}

/**
 * Cuts a row of items into as few runs as `capacity` allows, and among those cuts takes one whose largest run is smallest.
 * @param costs bytes of each item, whole and not negative
 * @returns null when one item alone exceeds the capacity
 */
export function cutIntoRuns(costs: readonly number[], capacity: number): ItemRun[] | null {
  let best = fill(costs, capacity);
  if (best === null) return null;
  const count = best.length;
  let low = 0, high = capacity; // runs of at most `high` suffice
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const runs = fill(costs, middle);
    if (runs !== null && runs.length <= count) {
      best = runs;
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return best;
}
