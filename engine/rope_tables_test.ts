import assert from "node:assert/strict";
import type { ModelSpec } from "../models/spec.ts";
import type { SegmentMap } from "./segment_map.ts";
import { fillRope } from "./rope_tables.ts";

/** Half the distance of neighbouring f32 near 1.19, the attention factor below, and what f64 angles of 1e4 leave. */
const TOLERANCE = 6.1e-8;

Deno.test("fillRope() fills cos and sin of every position's angles, also past the last whole stride", () => {
  const inverseFrequencies = Float64Array.from({ length: 8 }, (_, i) => 10000 ** (-i / 8));
  const contextLength = 64 * 150 + 17, half = 8, cosAt = 64, sinAt = cosAt + contextLength * half * 4;
  const memory = new WebAssembly.Memory({ initial: 12, maximum: 12, shared: true });
  const rope = { kind: "half", dims: 16, inverseFrequencies, attentionFactor: 1.19 };
  // Casts: only what the function reads.
  const spec = { attention: { rope } } as unknown as ModelSpec;
  const map = { rope: { cos: cosAt, sin: sinAt } } as unknown as SegmentMap;
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
