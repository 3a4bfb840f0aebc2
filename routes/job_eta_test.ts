import assert from "node:assert/strict";
import fc from "fast-check";
import { recipeSchema } from "../models/recipe.ts";
import { EtaEstimator, shareDone } from "./job_eta.ts";

const recipe = recipeSchema.parse({});

Deno.test("shareDone() rises over the stages of a recipe, up to 1", () => {
  const steps = ["sample", "calibrate", "compress", "evaluate"].flatMap((phase) =>
    [1, 2, 3].map((done) => ({ phase, done, total: 3 }))
  );
  const shares = steps.map((step) => shareDone(step, recipe)!);
  assert.ok(shares.every((share, i) => i === 0 || share > shares[i - 1]), shares.join());
  assert.ok(Math.abs(shares.at(-1)! - 1) < 1e-9);
  assert.equal(shareDone({ phase: "read", done: 1, total: 2 }, recipe), null);
  // Without measuring, calibration goes along with the compression.
  const given = recipeSchema.parse({ allocation: "uniform" });
  assert.equal(shareDone({ phase: "calibrate", done: 1, total: 2 }, given), null);
  const recovered = recipeSchema.parse({ recover: "distill" });
  const all = [...steps, { phase: "recover", done: 1, total: 3 }, { phase: "recover", done: 3, total: 3 }];
  const rising = all.map((step) => shareDone(step, recovered)!);
  assert.ok(rising.every((share, i) => i === 0 || share > rising[i - 1]), rising.join());
  assert.ok(Math.abs(rising.at(-1)! - 1) < 1e-9);
});

Deno.test("EtaEstimator is exact at an even speed, from wherever a run goes on", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 9 }), (from, seconds) => {
    let now = 0;
    const eta = new EtaEstimator(recipe, () => now),
      at = (done: number) => ({ phase: "compress", done, total: 30 });
    assert.equal(eta.see(at(from)), null);
    now = seconds * 5 * 1000;
    const rest = (1 - shareDone(at(from + 5), recipe)!) /
      (shareDone(at(5), recipe)! - shareDone(at(0), recipe)!);
    assert.ok(Math.abs(eta.see(at(from + 5))! - rest * 5 * seconds) < 1e-6);
  }));
});
