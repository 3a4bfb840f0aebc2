import assert from "node:assert/strict";
import type { ModelSpec } from "../models/spec.ts";
import type { SegmentMap } from "./segment_map.ts";
import { fillRope, ropeRows } from "./rope_tables.ts";

/** Half the distance of neighbouring f32 near 1.19, the attention factor below, and what f64 angles of 1e4 leave. */
const TOLERANCE = 6.1e-8;

Deno.test("fillRope() fills cos and sin of every position's angles, also past the last whole stride", () => {
  const inverseFrequencies = Float64Array.from({ length: 8 }, (_, i) => 10000 ** (-i / 8));
  const contextLength = 64 * 150 + 17, half = 8, cosAt = 64, sinAt = cosAt + contextLength * half * 4;
  const memory = new WebAssembly.Memory({ initial: 12, maximum: 12, shared: true });
  const rope = { kind: "half", dims: 16, inverseFrequencies, attentionFactor: 1.19 };
  // Casts: only what the function reads.
  const spec = { blocks: 1, attention: { rope } } as unknown as ModelSpec;
  const map = { ropes: [{ cos: cosAt, sin: sinAt }] } as unknown as SegmentMap;
  fillRope(memory, map, spec, contextLength);
  const cos = new Float32Array(memory.buffer, cosAt, contextLength * half);
  const sin = new Float32Array(memory.buffer, sinAt, contextLength * half + 1);
  let worst = 0;
  for (let p = 0; p < contextLength; p++) {
    for (let i = 0; i < half; i++) {
      const angle = p * inverseFrequencies[i];
      worst = Math.max(
        worst,
        Math.abs(cos[p * half + i] - 1.19 * Math.cos(angle)),
        Math.abs(sin[p * half + i] - 1.19 * Math.sin(angle)),
      );
    }
  }
  assert.ok(worst < TOLERANCE, `off by ${worst}`);
  assert.equal(sin[contextLength * half], 0, "nothing is written behind the table");
});

Deno.test("fillRope() puts the rows of long sequences behind those of short ones", () => {
  const rope = {
    dims: 2,
    inverseFrequencies: [1],
    attentionFactor: 1,
    long: { beyond: 5, inverseFrequencies: [0.5] },
  };
  const spec = { blocks: 1, attention: { rope } } as unknown as ModelSpec;
  const map = { ropes: [{ cos: 0, sin: 1024 }] } as unknown as SegmentMap;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  assert.deepEqual(ropeRows(spec, 9), { count: 14, beyond: 5, long: 5 });
  assert.deepEqual(ropeRows(spec, 5), { count: 5, beyond: Infinity, long: 0 });
  fillRope(memory, map, spec, 9);
  const sin = new Float32Array(memory.buffer, 1024, 15);
  for (let p = 0; p < 5; p++) assert.equal(sin[p], Math.fround(Math.sin(p)));
  for (let p = 0; p < 9; p++) assert.ok(Math.abs(sin[5 + p] - Math.sin(p / 2)) < TOLERANCE);
  assert.equal(sin[14], 0);
});
