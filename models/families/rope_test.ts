import assert from "node:assert/strict";
import { ropeSpec } from "./rope.ts";

const PLAIN = { dims: 8, theta: 10_000, maxPositions: 2048, scaling: null };

Deno.test("ropeSpec() without scaling gives theta^(-2i/d)", () => {
  const { inverseFrequencies, attentionFactor } = ropeSpec(PLAIN);
  assert.deepEqual(inverseFrequencies.map((f) => +f.toFixed(6)), [1, 0.1, 0.01, 0.001]);
  assert.equal(attentionFactor, 1);
});

Deno.test("dynamic scaling is plain within max_position_embeddings", () => {
  assert.deepEqual(ropeSpec({ ...PLAIN, scaling: { type: "dynamic", factor: 4 } }), ropeSpec(PLAIN));
});

Deno.test("yarn keeps the fastest pair, slows the slowest, and takes a given attention factor", () => {
  const scaling = {
    rope_type: "yarn",
    factor: 4,
    original_max_position_embeddings: 64,
    attention_factor: 1.5,
  };
  const { inverseFrequencies, attentionFactor } = ropeSpec({ ...PLAIN, scaling });
  assert.equal(inverseFrequencies[0], 1);
  assert.ok(Math.abs(inverseFrequencies[3] - 0.00025) < 1e-12);
  assert.equal(attentionFactor, 1.5);
});

Deno.test("ropeSpec() refuses a kind that is a property of every object", () => {
  for (const rope_type of ["constructor", "__proto__", 5, "longrope"]) {
    assert.throws(() => ropeSpec({ ...PLAIN, scaling: { rope_type } }), { code: "unsupported_architecture" });
  }
});
