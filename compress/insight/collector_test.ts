import assert from "node:assert/strict";
import { OUTLIER_MULTIPLES } from "../../models/formats/insight_file.ts";
import { outlierRatio, outlierRatios } from "../allocation/owl.ts";
import type { JobOf, ResultOf } from "../worker.ts";
import { seededRandom } from "../random.ts";
import { type BlockStatistics, toShared } from "../statistics.ts";
import { InsightCollector } from "./collector.ts";

const none = { inputError: null, scaled: null, plain: null, windows: null };
/** The pool's job, done here. */
const pool = {
  run: (job: unknown) => {
    const { layers, multiples } = job as JobOf<"outliers">;
    return Promise.resolve(outlierRatios(layers, multiples) as ResultOf<never>);
  },
};
const shared = (...values: number[]) => toShared(Float32Array.from(values));
const inputs = (d: number[], others: Partial<BlockStatistics> = {}): BlockStatistics => {
  const same = { d: shared(...d), H: null };
  return { attn: same, o: same, mlp: same, down: same, ...others };
};

Deno.test("outliers by hand: scores 1, 1, 1, 1, 16 have the mean 4, so one of five is above 3 times it", async () => {
  const collector = new InsightCollector(pool);
  const o = { data: shared(1, -1, 0.5, 0.25, -2), shape: [1, 5] };
  await collector.addBlock({ o, attnNorm: { data: shared(9), shape: [1] } }, inputs([1, 1, 2, 4, 8]));
  collector.addLayer({ name: "block.0.o", ...none });
  const { blocks, layers } = collector.result(null);
  assert.deepEqual(blocks, [{ outliers: [0.2, 0, 0, 0] }]);
  assert.deepEqual(layers[0].outliers, [0.2, 0, 0, 0]);
});

Deno.test("a block's outliers are OWL's of its layers together, without the weight on the first position", async () => {
  const { normal } = seededRandom(1), n = 30;
  const random = (count: number) => Float32Array.from({ length: count }, () => normal());
  const weight = () => ({ data: toShared(random(40 * n)), shape: [40, n] });
  const weights = { q: weight(), k: weight(), down: weight() };
  const rms = toShared(random(n).map((x) => Math.exp(2 * x))),
    d = toShared(rms.map((x, j) => j === 3 ? 100 * x : x));
  const statistics = inputs([...rms], { attn: { d, rms, H: null } });
  const collector = new InsightCollector(pool);
  await collector.addBlock(weights, statistics);
  for (const name of ["q", "k", "down"]) collector.addLayer({ name: `block.0.${name}`, ...none });
  const { blocks, layers, inputs: told } = collector.result(null);
  const scored = Object.values(weights).map(({ data }) => ({ W: data, d: rms }));
  assert.deepEqual(blocks[0].outliers, OUTLIER_MULTIPLES.map((m) => outlierRatio(scored, m)));
  assert.deepEqual(layers[2].outliers, OUTLIER_MULTIPLES.map((m) => outlierRatio([scored[2]], m)));
  assert.ok(blocks[0].outliers![0] > blocks[0].outliers![3] && blocks[0].outliers![3] > 0);
  assert.deepEqual(
    told.map((input) => input.name),
    ["attn", "o", "mlp", "down"].map((name) => `block.0.${name}`),
  );
  assert.equal(told[0].rms, told[1].rms);
});

Deno.test("a block of which nothing is known has no outliers", async () => {
  const collector = new InsightCollector(pool);
  await collector.addBlock(null, null);
  collector.addLayer({ name: "block.0.q", ...none });
  const { blocks, layers, inputs } = collector.result(null);
  assert.deepEqual([blocks, layers[0].outliers, inputs], [[{ outliers: null }], null, []]);
});
