/**
 * The least time that a linear kernel's arithmetic can take: what its loops hold (loop_counts.ts) times what the
 * machine needs for each kind of operation (the `peak` module, measured). Pure.
 *
 * Assumed: loads from memory come early enough, every unit works at the rate that it reaches alone, and all of them
 * at once; the busiest decides. Real cores share ports between units and V8 spills a few registers, so 80 % is good.
 *
 * Slots are what a core issues for an operation in V8's x64 code: a load is a bounds check (cmp and jae, fused to one)
 * and the load itself; `dot32` is five where the machine has no byte dot product (pmaddubsw, the ones made anew by
 * pcmpeqd and psrlw, pmaddwd, paddd). Against the disassembly (Deno 2.9.6, one chunk of 64 columns for two groups of
 * rows, fused pairs counted once):
 *
 * | kernel | loads | multiplies | shuffles | other vector | slots counted | in the machine code | the difference |
 * |---|---|---|---|---|---|---|---|
 * | q8 batch 1 | 53 | 68 | 0 | 38 | 222 | 290 | 64 lea for bounds |
 * | w6q8 batch 1 | 24 | 24 | 12 | 30 | 120 | 145 | 18 lea |
 * | w6q4 batch 1 | 18 | 14 | 24 | 48 | 128 | 147 | 11 lea |
 * | w6q8 batch 4 | 42 | 96 | 48 | 66 | 300 | 359 | 18 lea, 23 spills |
 * | w6q4 batch 8 | 36 | 56 | 60 | 84 | 278 | 341 | 20 lea, 26 spills |
 */

import { CHUNK, groupCount, type Shape2, type WeightFormat } from "./layout.ts";
import type { Loop, OperationKind, Operations } from "./loop_counts.ts";
import type { PeakLoop } from "./peak.ts";

const KINDS = [
  "load",
  "store",
  "dot16",
  "wide",
  "dot32",
  "madd",
  "shuffle",
  "vector",
  "scalar",
] as const satisfies readonly OperationKind[];

/** A checked access to memory is two. */
const SLOTS: Operations = {
  load: 2,
  store: 2,
  dot16: 1,
  wide: 1,
  dot32: 1,
  madd: 1,
  shuffle: 1,
  vector: 1,
  scalar: 1,
};
/** `dot32` where the machine has no instruction for it. */
const SPLIT_DOT32 = 5;
/** One instruction runs at the rate of the other multiplies; five at less than half of it. */
const SPLIT_RATIO = 2;

/** Nanoseconds that one operation takes at the unit's full rate; `issue`: one slot. */
export interface UnitTimes extends Readonly<Record<Exclude<OperationKind, "store" | "scalar">, number>> {
  readonly issue: number;
  /** Slots of a `dot32`, also its vector instructions. */
  readonly dot32Slots: number;
}

/** What keeps a kernel from being faster, if nothing but arithmetic does. */
export type ArithmeticUnit = "issue" | "load" | "multiply" | "shuffle" | "vector";

export interface IssueBound {
  readonly ns: number;
  readonly unit: ArithmeticUnit;
}

/** Columns that a hot loop takes at once (f32: eight), and the products of codes for four rows and one token in it. */
function hotStep(format: WeightFormat): { columns: number; products: number } {
  switch (format.kind) {
    case "f32":
      return { columns: 8, products: 8 };
    case "q8":
    case "q4":
      return { columns: CHUNK, products: 16 };
    case "windows":
      return { columns: CHUNK, products: format.windows };
  }
}

const productsOf = ({ operations: o }: Loop, f32: boolean) => f32 ? o.madd : o.dot16 + o.dot32;

interface Placed {
  readonly loop: Loop;
  readonly parents: readonly Loop[];
}

const innermost = (loop: Loop, parents: readonly Loop[] = []): Placed[] =>
  loop.loops.length === 0
    ? [{ loop, parents }]
    : loop.loops.flatMap((inner) => innermost(inner, [...parents, loop]));

function add(total: Record<OperationKind, number>, { operations }: Loop, times: number): void {
  for (const kind of KINDS) total[kind] += operations[kind] * times;
}

/**
 * Operations of one call. Of the loops over rows, the one with most products (pairs of groups, where there are pairs)
 * stands for all; in it, the innermost loops with most products run for every chunk, what encloses them for every
 * block, the loop over rows itself once for each of its rounds. Remainders and tails count as if they were whole.
 *
 * @param root the kernel's loops, from `countLoops()` of its module
 * @throws {RangeError} when no loop of it multiplies
 */
export function kernelOperations(
  root: Loop,
  { format, shape: [dOut, dIn], batch }: { format: WeightFormat; shape: Shape2; batch: number },
): Operations {
  const f32 = format.kind === "f32";
  const places = innermost(root);
  const most = Math.max(...places.map(({ loop }) => productsOf(loop, f32)));
  if (!(most > 0)) throw new RangeError("Cannot bound a kernel: none of its loops multiplies");
  const hottest = places.filter(({ loop }) => productsOf(loop, f32) === most);
  const rows = hottest[0].parents[1];
  const hot = hottest.filter(({ parents }) => parents[1] === rows);

  const step = hotStep(format);
  const steps = format.kind === "windows" ? Math.ceil(dIn / step.columns) : dIn / step.columns;
  const rounds = groupCount(dOut) * steps * batch * step.products / (most * hot.length);
  const blockSteps = format.kind === "windows" ? format.blockChunks : 1;
  const total = Object.fromEntries(KINDS.map((kind) => [kind, 0])) as Record<OperationKind, number>;
  for (const { loop, parents } of hot) {
    add(total, loop, rounds);
    for (const block of parents.slice(2)) add(total, block, rounds / blockSteps);
  }
  if (rows) add(total, rows, rounds / steps);
  return total;
}

const slots = (o: Operations, dot32Slots: number): number =>
  KINDS.reduce((sum, kind) => sum + o[kind] * (kind === "dot32" ? dot32Slots : SLOTS[kind]), 0);

/**
 * Unit times from the peak loops.
 * @param measured of each loop: nanoseconds of a step and its operations
 */
export function unitTimes(
  measured: Readonly<Record<PeakLoop, { readonly ns: number; readonly operations: Operations }>>,
): UnitTimes {
  const per = (loop: PeakLoop, kind: OperationKind) => measured[loop].ns / measured[loop].operations[kind];
  const dot16 = per("dot16", "dot16"), dot32 = per("i32", "dot32");
  const dot32Slots = dot32 > SPLIT_RATIO * dot16 ? SPLIT_DOT32 : 1;
  return {
    load: per("load", "load"),
    dot16,
    wide: per("wide", "wide"),
    dot32,
    madd: per("f32", "madd"),
    shuffle: per("shuffle", "shuffle"),
    vector: per("vector", "vector"),
    issue: Math.min(
      ...Object.values(measured).map(({ ns, operations }) => ns / slots(operations, dot32Slots)),
    ),
    dot32Slots,
  };
}

/** The busiest unit, and how long it takes. */
export function issueBound(o: Operations, t: UnitTimes): IssueBound {
  const onVectors = o.dot16 + o.wide + o.madd + o.shuffle + o.vector + o.dot32 * t.dot32Slots;
  const times: Readonly<Record<ArithmeticUnit, number>> = {
    issue: slots(o, t.dot32Slots) * t.issue,
    load: o.load * t.load,
    multiply: o.dot16 * t.dot16 + o.wide * t.wide + o.madd * t.madd + o.dot32 * t.dot32,
    shuffle: o.shuffle * t.shuffle,
    vector: onVectors * t.vector,
  };
  const unit = (Object.keys(times) as ArithmeticUnit[]).reduce((a, b) => times[b] > times[a] ? b : a);
  return { ns: times[unit], unit };
}
