import assert from "node:assert/strict";
import { budgetBytes, keptPerRow, layerBudget, lowRankRank } from "./budget.ts";

Deno.test("lowRankRank() gives OATS's ranks", () => {
  assert.equal(lowRankRank([576, 576], 0.5, 0.25), 36);
  assert.equal(lowRankRank([1536, 576], 0.5, 0.25), 52);
  assert.equal(lowRankRank([8, 8], 0.5, 1), 2);
});

Deno.test("lowRankRank() returns 0 for a layer too small and for rank ratio 0", () => {
  assert.equal(lowRankRank([2, 3], 0.5, 0.25), 0);
  assert.equal(lowRankRank([576, 576], 0.5, 0), 0);
});

Deno.test("lowRankRank() and keptPerRow() refuse shares outside their range", () => {
  for (const [rate, ratio] of [[1, 0.5], [-0.1, 0.5], [NaN, 0.5], [0.5, 1.1], [0.5, -1]]) {
    assert.throws(() => lowRankRank([4, 4], rate, ratio), RangeError);
    assert.throws(() => keptPerRow(4, rate, ratio), RangeError);
  }
});

Deno.test("keptPerRow() drops int(dIn (1 - (1 - κ)(1 - ρ))) entries", () => {
  assert.equal(keptPerRow(576, 0.5, 0.25), 216);
  assert.equal(keptPerRow(64, 0, 0), 64);
  assert.equal(keptPerRow(10, 0.3, 0), 7); // 1 - 0.7 is not quite 0.3
});

Deno.test("layerBudget() of windows keeps the rate: the rank absorbs the rounding of K", () => {
  for (const shape of [[576, 576], [1536, 576], [576, 1536]] as const) {
    for (const rate of [0.1, 0.22, 0.3, 0.38, 0.45, 0.5, 0.6, 0.7]) {
      const { windows, rank } = layerBudget(shape, rate, { rankRatio: 0.25, pattern: "windows" });
      const removed = 1 - windows! / 16 - rank * (shape[0] + shape[1]) / (shape[0] * shape[1]);
      const oneRank = (shape[0] + shape[1]) / (shape[0] * shape[1]);
      assert.ok(removed >= rate - 1e-9 && removed < rate + oneRank, `${shape} at ${rate}: ${removed}`);
    }
  }
});

Deno.test("layerBudget() of windows is defined at the ends", () => {
  const at = (rate: number, rankRatio: number) =>
    layerBudget([64, 64], rate, { rankRatio, pattern: "windows" });
  assert.deepEqual(at(0, 0), { kept: 64, rank: 0, windows: 16 });
  assert.deepEqual(at(0.95, 0), { kept: 4, rank: 0, windows: 1 });
  assert.deepEqual(at(0.5, 1), { kept: 0, rank: 16, windows: 0 });
  assert.equal(at(0.7, 0.9).windows, 4); // one whole view is preferred to less
});

Deno.test("budgetBytes() counts S and the factors without padding U's columns", () => {
  const options = { bits: 8, blockChunks: 2 } as const;
  const S = budgetBytes([1536, 576], { rank: 0, windows: 6 }, options);
  const U = 384 * (16 + 52 * 4), V = 52 / 4 * 9 * (16 + 64 * 4);
  assert.equal(budgetBytes([1536, 576], { rank: 52, windows: 6 }, options), S + U + V);
});

Deno.test("layerBudget() of N:M: the rate says N without L, L takes the rest with it", () => {
  const at = (rate: number, rankRatio: number, pattern: "2:4" | "4:8" | "8:16") =>
    layerBudget([64, 64], rate, { rankRatio, pattern });
  assert.deepEqual(at(0.5, 0, "2:4"), { kept: 32, rank: 0, windows: null, groups: { n: 2, m: 4 } });
  assert.deepEqual(at(0.625, 0, "4:8"), { kept: 24, rank: 0, windows: null, groups: { n: 3, m: 8 } });
  assert.deepEqual(at(0.25, 0.25, "8:16"), { kept: 32, rank: 8, windows: null, groups: { n: 8, m: 16 } });
  assert.deepEqual(at(0.7, 0.25, "4:8"), { kept: 16, rank: 1, windows: null, groups: { n: 2, m: 8 } });
  assert.equal(at(0.5, 1, "4:8").kept, 0);
  assert.equal(layerBudget([4, 10], 0.5, { rankRatio: 0, pattern: "4:8" }).kept, 5);
});
