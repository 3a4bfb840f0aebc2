import assert from "node:assert/strict";
import fc from "fast-check";
import { openCheckpoint } from "../models/open.ts";
import { packDense } from "../models/pack_dense.ts";
import { buildPlan } from "../models/build_plan.ts";
import { cutIntoRuns, planItems } from "./segments.ts";

const checkpoint = await openCheckpoint(new URL("../models/default/", import.meta.url).pathname);
const tied = packDense(checkpoint, { values: "int8" });
checkpoint.close();
const untied = {
  ...tied,
  spec: { ...tied.spec, tiedEmbeddings: false },
  tensors: [...tied.tensors, { ...tied.tensors[0], name: "head" }],
};

Deno.test("planItems() gives every operation to the embedding, its block or the head", () => {
  const plan = buildPlan(untied);
  const { blocks } = untied.spec;
  const items = planItems(plan, blocks);
  assert.equal(items.count, blocks + 2);
  assert.deepEqual(items.head, plan.head.map(() => blocks + 1));
  assert.deepEqual([...new Set(items.body)], Array.from({ length: blocks + 1 }, (_, i) => i));
  assert.deepEqual(items.body, items.body.toSorted((a, b) => a - b));
  plan.body.forEach((op, i) => {
    if ("block" in op) assert.equal(items.body[i], op.block + 1);
    if (i > 0 && items.body[i] !== items.body[i - 1]) assert.equal(plan.body[i - 1].op, "sync");
  });
});

Deno.test("planItems() puts the head of tied embeddings where the table is", () => {
  const plan = buildPlan(tied);
  assert.deepEqual(planItems(plan, tied.spec.blocks).head, plan.head.map(() => 0));
});

/** Every way to cut `costs` into runs, as lists of sums. */
function allCuts(costs: readonly number[]): number[][] {
  const cuts: number[][] = [];
  for (let mask = 0; mask < 1 << (costs.length - 1); mask++) {
    const sums = [0];
    costs.forEach((cost, i) => {
      sums[sums.length - 1] += cost;
      if (mask >> i & 1) sums.push(0);
    });
    cuts.push(sums);
  }
  return cuts;
}

Deno.test("cutIntoRuns() finds as few runs as can be, the largest as small as can be", () => {
  const costs = fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 9 });
  fc.assert(fc.property(costs, fc.integer({ min: 0, max: 60 }), (costs, capacity) => {
    const cuts = allCuts(costs).filter((sums) => Math.max(...sums) <= capacity);
    const runs = cutIntoRuns(costs, capacity);
    if (runs === null) return assert.equal(cuts.length, 0);
    assert.equal(runs[0].begin, 0);
    runs.forEach((r, i) => assert.equal(r.end, runs[i + 1]?.begin ?? costs.length));
    const sums = runs.map((r) => costs.slice(r.begin, r.end).reduce((a, b) => a + b, 0));
    const fewest = Math.min(...cuts.map((c) => c.length));
    assert.equal(sums.length, fewest);
    const most = Math.min(...cuts.filter((c) => c.length === fewest).map((c) => Math.max(...c)));
    assert.equal(Math.max(...sums), most);
  }));
});
