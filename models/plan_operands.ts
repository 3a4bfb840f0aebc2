/** What an operation of the plan touches, by name: for whoever decides where things lie. */
import type { BufferRef, PlanOp } from "./plan.ts";

export interface Operands {
  readonly tensors: readonly string[];
  readonly buffers: readonly string[];
  readonly tiles: readonly string[];
}

const namesOf = (refs: readonly (BufferRef | null)[]): string[] => refs.flatMap((r) => r ? [r.buffer] : []);
const given = (names: readonly (string | null | undefined)[]): string[] => names.flatMap((n) => n ? [n] : []);

/** Tensors, buffers and tiles that an operation reads or writes. */
export function operandsOf(op: PlanOp): Operands {
  switch (op.op) {
    case "embed":
      return { tensors: [op.table], buffers: namesOf([op.out]), tiles: [] };
    case "prepare":
      return {
        tensors: given([op.norm?.weight, op.norm?.bias, op.scale]),
        buffers: namesOf([op.input, op.activation?.gate ?? null]),
        tiles: [op.tile],
      };
    case "norm":
      return {
        tensors: given([op.norm.weight, op.norm.bias]),
        buffers: namesOf([op.input, op.out]),
        tiles: [],
      };
    case "copy":
      return { tensors: [], buffers: namesOf([op.input, op.out]), tiles: [] };
    case "linear":
      return { tensors: [...op.weights, ...op.biases], buffers: namesOf([op.out]), tiles: [op.tile] };
    case "norm_heads":
      return { tensors: [op.weight], buffers: namesOf([op.x]), tiles: [] };
    case "rope":
    case "soft_cap":
      return { tensors: [], buffers: namesOf([op.x]), tiles: [] };
    case "kv_write":
      return { tensors: [], buffers: namesOf([op.k, op.v]), tiles: [] };
    case "attention":
      return { tensors: [], buffers: namesOf([op.q, op.out]), tiles: [] };
    case "route":
      return {
        tensors: given([op.norm.weight, op.norm.bias, op.router]),
        buffers: namesOf([op.input, op.out, op.shares]),
        tiles: [],
      };
    case "experts": {
      const inside = op.each.flat().map(operandsOf);
      return {
        tensors: inside.flatMap((o) => o.tensors),
        buffers: [op.shares.buffer, ...inside.flatMap((o) => o.buffers)],
        tiles: inside.flatMap((o) => o.tiles),
      };
    }
    case "add_chosen":
      return { tensors: [], buffers: namesOf([op.input, op.out]), tiles: [] };
    case "adapt_in":
      return {
        tensors: given([op.norm?.weight, op.norm?.bias]),
        buffers: namesOf([op.input, op.activation?.gate ?? null]),
        tiles: [],
      };
    case "adapt_out":
      return { tensors: [], buffers: namesOf(op.layers.map(({ out }) => out)), tiles: [] };
    case "sync":
      return { tensors: [], buffers: [], tiles: [] };
  }
}

/** The operations and, behind it, those inside of each. */
export const withInner = (ops: readonly PlanOp[]): PlanOp[] =>
  ops.flatMap((op) => op.op === "experts" ? [op, ...op.each.flatMap(withInner)] : [op]);

/** Whether an operation is there for adapters alone: steps without adapted rows pass over it. */
export const isAdaptation = (op: PlanOp): boolean =>
  op.op === "adapt_in" || op.op === "adapt_out" || (op.op === "sync" && op.adapted === true);

/** The transformer block that an operation names, directly or by a tensor; null when it names none. */
export function blockOf(op: PlanOp): number | null {
  if ("block" in op) return op.block;
  for (const name of operandsOf(op).tensors) {
    const match = /^block\.(\d+)\./.exec(name);
    if (match) return Number(match[1]);
  }
  return null;
}
