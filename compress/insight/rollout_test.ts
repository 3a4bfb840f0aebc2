import assert from "node:assert/strict";
import { openModel } from "../../engine/open_model.ts";
import type { Weight, WeightRole } from "../../models/checkpoint.ts";
import { openCheckpoint } from "../../models/open.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import type { Pixels } from "../../models/classifier.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { attentionRollout, correlation, type PartedWeights } from "./rollout.ts";

const VIT = shared("oracles/vit").pathname;
/** f32 in two orders. */
const NOISE = 1e-5;

const image: Pixels = {
  width: 32,
  height: 32,
  data: Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i / 7) + Math.cos(i / 50)),
};

type Parts = (role: string, weight: Weight) => ReturnType<PartedWeights["readParts"]>;

/** A dense model whose layers are split by `parts`. */
async function withParts(
  parts: Parts,
  run: (weights: PartedWeights, linalg: LinalgRuntime) => Promise<void>,
) {
  const checkpoint = await openCheckpoint(VIT), linalg = await LinalgRuntime.create(1);
  try {
    const layers = new Map<string, Weight>();
    for (let block = 0; block < checkpoint.spec.blocks; block++) {
      for (const name of ["q", "k", "v", "o", "up", "down"] as const) {
        const role: WeightRole = `block.${block}.${name}`;
        layers.set(role, await checkpoint.read(role));
      }
    }
    const readParts = (role: string) => parts(role, layers.get(role)!);
    const { spec } = checkpoint;
    const weights = {
      spec,
      has: (r: WeightRole) => checkpoint.has(r),
      read: (r: WeightRole) => checkpoint.read(r),
    };
    await run({ ...weights, readParts }, linalg);
  } finally {
    await linalg.close();
    checkpoint.close();
  }
}
const shapeOf = ({ shape }: Weight) => [shape[0], shape[1]] as [number, number];

oracleTest(
  "attentionRollout() of S + L classifies as the engine does; S and L alone differ",
  "oracles/vit",
  async () => {
    // S: the even rows; L: the odd ones, W = I W.
    const rowsOf = (weight: Weight, odd: 0 | 1) =>
      weight.data.map((v, i) => Math.floor(i / weight.shape[1]) % 2 === odd ? v : 0);
    const split: Parts = (_, weight) => {
      const shape = shapeOf(weight), [rank] = shape;
      const u = new Float32Array(rank * rank).map((_, i) => i % (rank + 1) === 0 ? 1 : 0);
      return { sparse: rowsOf(weight, 0), shape, lowRank: { u, v: rowsOf(weight, 1), rank } };
    };
    const { encoder, engine } = await openModel(VIT, { threads: 1 });
    const { logits } = await encoder!.run(image);
    await engine.close();
    await withParts(split, async (weights, linalg) => {
      const { rows, columns, parts } = await attentionRollout(image, weights, linalg);
      const [whole, sparse, lowRank] = parts;
      assert.deepEqual([rows, columns, whole.map.length], [4, 4, 16]);
      assert.equal(whole.label, encoder!.labels![logits!.indexOf(Math.max(...logits!))]);
      assert.ok(Math.abs(whole.correlation - 1) < NOISE);
      for (const { map, correlation } of [sparse, lowRank]) {
        assert.ok(correlation < 0.999 && map.every((v) => v >= 0) && map.reduce((a, b) => a + b, 0) < 1);
      }
    });
  },
);

oracleTest(
  "attentionRollout() of uniform attention is the closed form (1 - 1 / 2^blocks) / tokens",
  "oracles/vit",
  async () => {
    const zeros: Parts = (_, weight) => ({
      sparse: new Float32Array(weight.data.length),
      shape: shapeOf(weight),
      lowRank: null,
    });
    await withParts(zeros, async (weights, linalg) => {
      const noBias = {
        ...weights,
        has: (role: WeightRole) => !/^block.*\.[qk]\.bias$/.test(role) && weights.has(role),
      };
      const { parts: [{ map }] } = await attentionRollout(image, noBias, linalg);
      const wanted = (1 - 2 ** -weights.spec.blocks) / 17;
      assert.ok(map.every((v) => Math.abs(v - wanted) < NOISE), `${map[0]} for ${wanted}`);
    });
  },
);

Deno.test("correlation() is Pearson's", () => {
  assert.equal(correlation([1, 2, 3], [2, 4, 6]), 1);
  assert.equal(correlation([1, 2, 3], [3, 2, 1]), -1);
  assert.equal(correlation([1, 1, 1], [3, 2, 1]), 0);
});
