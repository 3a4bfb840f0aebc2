import assert from "node:assert/strict";
import { mapMemory } from "../engine/memory_map.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import { recipeSchema } from "../models/recipe.ts";
import { LINEAR_NAMES } from "../models/spec.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { layersModel } from "./_layers_model.ts";
import { isSparse, kindName, recipeLayers } from "./layer_kinds.ts";
import { benchLayers, type KindSpeed, namesOf } from "./layers.ts";

const recipe = { ...recipeSchema.parse({ rate: 0.5, rank_ratio: 0.25 }), pattern: "windows" as const };

Deno.test("recipeLayers() finds each kind once, with all its layers", () => {
  const { kinds } = recipeLayers(SYNTHETIC_SPECS["smollm2-135m"], recipe);
  assert.deepEqual(kinds.map((k) => [k.layers, k.shape.join("x"), kindName(k)]), [
    [{ q: 30 }, "576x576", "h6q8 + 40"],
    [{ k: 30, v: 30 }, "192x576", "h6q8 + 24"],
    [{ o: 30 }, "576x576", "h6q8 + 40"],
    [{ gate: 30, up: 30 }, "1536x576", "h6q8 + 56"],
    [{ down: 30 }, "576x1536", "h6q8 + 56"],
  ]);
});

Deno.test("recipeLayers() keeps layers that stay dense as dense ones", () => {
  const { kinds } = recipeLayers(SYNTHETIC_SPECS["smollm2-135m"], { ...recipe, rate: 0 });
  assert.ok(kinds.length > 0 && !kinds.some(isSparse));
});

for (const input of ["attn", "o", "mlp", "down"] as const) {
  Deno.test(`layersModel() holds the copies of each way alone and between syncs: ${input}`, () => {
    const shape = [96, 128] as const, q8 = { kind: "q8" } as const;
    const ways = [
      { parts: [{ part: "w", format: { kind: "q4" }, shape }], copies: 3 },
      {
        parts: [
          { part: "s", format: { kind: "windows", windows: 6, bits: 8, blockChunks: 2 }, shape },
          { part: "v", format: q8, shape: [8, 128] },
          { part: "u", format: q8, shape: [96, 8] },
        ],
        copies: 2,
      },
    ] as const;
    const { model, plan, ends, layersPerCopy } = layersModel(SYNTHETIC_SPECS.tiny, {
      ...{ input, shape, blockChunks: 2, ways },
    });
    assert.equal(layersPerCopy, { attn: 3, o: 1, mlp: 2, down: 1 }[input]);
    assert.equal(model.tensors.length, layersPerCopy * (3 * 1 + 2 * 3));
    assert.deepEqual(ends.map((e) => e.length), [3, 2]);
    let begin = 0;
    ends.forEach((some, way) =>
      some.forEach((end) => {
        const ops = plan.body.slice(begin, end);
        assert.equal(ops.at(-1)!.op, "sync"); // a run ends when all threads have
        const weights = ops.flatMap((op) => op.op === "linear" ? op.weights : []);
        assert.equal(weights.length, layersPerCopy * ways[way].parts.length);
        assert.ok(ops.every(({ op }) => ["linear", "prepare", "sync"].includes(op)));
        begin = end;
      })
    );
    assert.equal(begin, plan.body.length);
    const options = { threads: 2, maxRows: 8, maxSequences: 1, kvBlocks: 0, contextLength: 16 };
    const [{ tensors }] = mapMemory(model, plan, { ...options, kvFormat: "f32" }).segments;
    assert.equal(Object.keys(tensors).length, model.tensors.length);
    const filled: TensorEntry[] = [];
    model.load((entry) => {
      filled.push(entry);
      return new Uint8Array(entry.bytes);
    });
    assert.deepEqual(filled, model.tensors);
  });
}

Deno.test("namesOf() weighs kinds by their layers and their time", () => {
  const [kind] = recipeLayers(SYNTHETIC_SPECS.tiny, recipe).kinds;
  const speed = (layers: number, us: number, int8: number): KindSpeed => ({
    kind: { ...kind, layers: { q: layers } },
    batches: ([1, 8, 64] as const).map((batch) => ({
      ...{ batch, us, dense_us: { int8, int4: us }, against: { int8: int8 / us, int4: 1 } },
    })),
  });
  const [name] = namesOf([speed(1, 10, 30), speed(2, 20, 10)]);
  assert.equal(name.layers, 3);
  assert.deepEqual(name.batches[0], { batch: 1, against: { int8: 1, int4: 1 } }); // 30 + 2 x 10 against 10 + 2 x 20
  assert.deepEqual(name.faster_at, { int8: [], int4: [] });
});

Deno.test("recipeLayers() counts the layers of all experts by their kind", () => {
  const spec = SYNTHETIC_SPECS.tiny, mlp = { ...spec.mlp, experts: { count: 3, perToken: 1 } };
  const counts = new Map<string, number>();
  for (const { layers } of recipeLayers({ ...spec, mlp }, recipe).kinds) {
    for (const [name, n] of Object.entries(layers)) counts.set(name, (counts.get(name) ?? 0) + n);
  }
  const wanted = LINEAR_NAMES.map((
    name,
  ) => [name, spec.blocks * (["gate", "up", "down"].includes(name) ? 3 : 1)]);
  assert.deepEqual(Object.fromEntries(counts), Object.fromEntries(wanted));
});

Deno.test("benchLayers() measures every sparse kind with several threads and sums up every name", async () => {
  const layers = recipeLayers(SYNTHETIC_SPECS.tiny, recipe);
  const { kinds, names, threads, leave_dense, disturbance } = await benchLayers(layers, {
    threads: 2,
    quick: true,
  });
  assert.ok(threads === 2 && disturbance >= 1);
  assert.deepEqual(kinds.map((k) => k.kind), layers.kinds);
  assert.deepEqual(names.map((n) => [n.name, n.layers]), LINEAR_NAMES.map((name) => [name, 2]));
  for (const { batches } of kinds) {
    for (const { us, dense_us, against } of batches) {
      assert.ok(us > 0 && Math.abs(against.int8 * us / dense_us.int8 - 1) < 1e-9);
    }
  }
  for (const name of leave_dense.always) {
    assert.ok(leave_dense.by_batch.every(({ names }) => names.includes(name)), name);
  }
});
