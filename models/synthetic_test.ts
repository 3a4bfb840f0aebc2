import assert from "node:assert/strict";
import type { Shape2 } from "../kernels/layout.ts";
import { unpack } from "../kernels/unpack.ts";
import { buildPlan } from "./build_plan.ts";
import { syntheticModel } from "./synthetic.ts";
import { SYNTHETIC_SHAPES } from "./synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "./synthetic_specs.ts";

const layout = {
  blockChunks: 2,
  parts: (shape: Shape2) =>
    [
      { part: "s", format: { kind: "windows", windows: 6, bits: 4, blockChunks: 2 }, shape },
      { part: "v", format: { kind: "q8" }, shape: [12, shape[1]] },
      { part: "u", format: { kind: "q8" }, shape: [shape[0], 12] },
    ] as const,
  table: { kind: "q8" },
  inputScales: true,
} as const;

Deno.test("syntheticModel() of every shape has the tensors that its plan needs", () => {
  for (const shape of SYNTHETIC_SHAPES) {
    buildPlan(syntheticModel(shape, SYNTHETIC_SPECS[shape], layout));
  }
});

Deno.test("syntheticModel() fills every tensor, with weights whose products keep the inputs' size", async () => {
  const model = syntheticModel("tiny", SYNTHETIC_SPECS.tiny, layout);
  const filled = new Map<string, Uint8Array>();
  await model.load((entry) => {
    filled.set(entry.name, new Uint8Array(entry.bytes));
    return filled.get(entry.name)!;
  });
  assert.equal(filled.size, model.tensors.length);
  for (const { name, format, shape } of model.tensors) {
    const bytes = filled.get(name)!;
    const values = format.kind === "vector"
      ? new Float32Array(bytes.buffer)
      : unpack(format, bytes, [shape[0], shape[1]]);
    assert.ok(values.every(Number.isFinite), name);
    if (format.kind === "vector") continue;
    const gain = values.reduce((sum, w) => sum + w * w, 0) / shape[0]; // of an output, with inputs of variance 1
    assert.ok(gain > 0.5 && gain < 3, `${name}: ${gain}`);
  }
});
