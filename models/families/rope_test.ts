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
  for (const rope_type of ["constructor", "__proto__", 5, "nosuch"]) {
    assert.throws(() => ropeSpec({ ...PLAIN, scaling: { rope_type } }), { code: "unsupported_architecture" });
  }
});

Deno.test("longrope divides by one list up to the original length and by another beyond it", () => {
  const scaling = { type: "longrope", short_factor: [1, 2, 3, 4], long_factor: [2, 3, 4, 5] };
  const rope = ropeSpec({ ...PLAIN, maxPositions: 256, originalPositions: 64, scaling });
  const plain = ropeSpec({ ...PLAIN, scaling: null }).inverseFrequencies;
  assert.deepEqual(rope.inverseFrequencies, plain.map((f, i) => f / (i + 1)));
  assert.deepEqual(rope.long, { beyond: 64, inverseFrequencies: plain.map((f, i) => f / (i + 2)) });
  assert.ok(Math.abs(rope.attentionFactor - Math.sqrt(1 + Math.log(4) / Math.log(64))) < 1e-15);
  assert.deepEqual(
    ropeSpec({ ...PLAIN, maxPositions: 256, originalPositions: 64, scaling: { ...scaling, type: "su" } }),
    rope,
  );
  assert.throws(() => ropeSpec({ ...PLAIN, scaling: { ...scaling, long_factor: [1] } }), {
    code: "invalid_config",
  });
});
