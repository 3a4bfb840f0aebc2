import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { buildPlan } from "../models/build_plan.ts";
import { operandsOf } from "../models/plan_operands.ts";
import { mapMemory } from "./memory_map.ts";
import { kvBlockBytes, type SegmentMap } from "./segment_map.ts";

const checkpoint = await openCheckpoint(new URL("../models/default/", import.meta.url).pathname);
const model = packDense(checkpoint, { values: "int8" });
checkpoint.close();
const plan = buildPlan(model);
const options = {
  threads: 2,
  maxRows: 32,
  maxSequences: 4,
  kvBlocks: 64,
  contextLength: 256,
  kvFormat: "f32",
} as const;
const whole = mapMemory(model, plan, options).segments[0];

/** Limits in steps of 1 % from the whole down to nothing. */
const limits = Array.from({ length: 99 }, (_, i) => Math.floor(whole.bytes * (1 - i / 100)));
const maps = limits.flatMap((memoryLimitBytes) => {
  try {
    return [{ memoryLimitBytes, map: mapMemory(model, plan, { ...options, memoryLimitBytes }) }];
  } catch (error) {
    assert.ok(error instanceof OatmillError && error.code === "too_large");
    return [];
  }
});

const allAddresses = (s: SegmentMap): number[] => [
  ...Object.values(s.tensors).map((t) => t.address),
  ...[...Object.values(s.buffers), ...s.own.map((o) => o.rows)].map((b) => b.address),
  ...Object.values(s.kv).flatMap(({ k, v }) => [k, v]),
];

Deno.test("kvBlockBytes() of f16 is half and of int8 a quarter of f32, plus what int8 stores by token", () => {
  const shape = { kvHeads: 3, headDim: 64 };
  assert.deepEqual(kvBlockBytes("f32", shape), { k: 12288, v: 12288 });
  assert.deepEqual(kvBlockBytes("f16", shape), { k: 6144, v: 6144 });
  assert.deepEqual(kvBlockBytes("int8", shape), { k: 3072 + 3 * 16 * 8, v: 3072 + 3 * 16 * 4 });
});

Deno.test("mapMemory() takes one memory when it suffices, more the lower the limit", () => {
  const counts = maps.map(({ map }) => map.segments.length);
  assert.equal(counts[0], 1);
  assert.deepEqual(counts, counts.toSorted((a, b) => a - b));
  assert.ok(counts.includes(2) && counts.includes(3) && counts.at(-1)! > 3);
});

Deno.test("mapMemory() keeps every memory within the limit, every tensor and pool once", () => {
  for (const { memoryLimitBytes, map } of maps) {
    for (const s of map.segments) {
      assert.ok(s.bytes <= memoryLimitBytes);
      assert.ok(allAddresses(s).every((a) => a >= 1024 && a < s.bytes && a % 16 === 0));
    }
    const tensors = map.segments.flatMap((s) => Object.keys(s.tensors));
    assert.deepEqual(tensors.toSorted(), model.tensors.map((t) => t.name).toSorted());
    const blocks = map.segments.flatMap((s) => Object.keys(s.kv).map(Number));
    assert.deepEqual(blocks, Array.from({ length: model.spec.blocks }, (_, i) => i));
  }
});

Deno.test("mapMemory() gives each segment what its operations name, and equal common addresses", () => {
  for (const { map } of maps) {
    const ops = [
      ...plan.body.map((op, i) => ({ op, at: map.body[i] })),
      ...plan.head.map((op) => ({ op, at: map.head })),
    ];
    for (const { op, at } of ops) {
      const { tensors, buffers, tiles, ...common } = map.segments[at];
      const used = operandsOf(op);
      for (const t of used.tensors) assert.ok(t in tensors);
      for (const b of used.buffers) assert.ok(b in buffers);
      for (const t of used.tiles) assert.ok(t in tiles);
      if ("block" in op) assert.ok(op.block in common.kv);
      assert.deepEqual(common.step, whole.step);
      assert.equal(common.blockTables, whole.blockTables);
    }
  }
});

Deno.test("blocks read nothing but `hidden` from what stands before them", () => {
  // What a hop copies. Reading here is naming before a prepare, linear or attention has written it in the same block.
  const { map } = maps.find(({ map }) => map.segments.length > 2)!;
  const written = new Map<number, Set<string>>();
  plan.body.forEach((op, i) => {
    const own = written.get(map.body[i]) ?? new Set(["hidden"]);
    written.set(map.body[i], own);
    const reads = op.op === "prepare"
      ? [op.input]
      : op.op === "rope"
      ? [op.x]
      : op.op === "kv_write"
      ? [op.k, op.v]
      : op.op === "attention"
      ? [op.q]
      : [];
    for (const { buffer } of reads) assert.ok(own.has(buffer), `${op.op} reads ${buffer}`);
    if ("out" in op) own.add(op.out.buffer);
  });
});
