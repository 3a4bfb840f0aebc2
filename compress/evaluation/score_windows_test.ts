import assert from "node:assert/strict";
import { scoreAll, scoreWindows } from "./score_windows.ts";
import { BigramEngine } from "./testing/bigram_engine.ts";

/** After 0 either token is as likely; after 1 token 0 is three times as likely. */
const engine = () => new BigramEngine([[1, 1], [3, 1]]);
/** f32 log-likelihoods. */
const CLOSE = 1e-6;
const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < CLOSE, `${a} is not ${b}`);

Deno.test("scoreWindows() sums what stands after `from`, whichever answer comes first", async () => {
  const windows = [{ ids: [0, 1, 0], from: 0 }, { ids: [0, 1, 1], from: 1 }, { ids: [1, 0], from: 0 }];
  const seen: number[] = [];
  const sums = await scoreWindows(engine(), windows, { onProgress: (done) => seen.push(done) });
  close(sums[0], Math.log(2) - Math.log(3 / 4));
  close(sums[1], Math.log(4));
  close(sums[2], -Math.log(3 / 4));
  assert.deepEqual(seen, [1, 2, 3]);
  const { nll, scored } = await scoreAll(engine(), windows);
  close(nll, sums[0] + sums[1] + sums[2]);
  assert.equal(scored, 4);
});

Deno.test("scoreWindows() keeps two steps of the engine full, and does not flood it", async () => {
  const most = async (length: number, from = 0) => {
    let running = 0, peak = 0;
    const slow = {
      score: async () => {
        peak = Math.max(peak, ++running);
        await new Promise((done) => setTimeout(done));
        running--;
        return new Float32Array(length - 1);
      },
    };
    await scoreWindows(slow, Array(100).fill({ ids: Array(length).fill(0), from }));
    return peak;
  };
  assert.deepEqual([await most(2049), await most(512), await most(65), await most(2)], [2, 2, 9, 32]);
  assert.equal(await most(65, 40), 17, "32 of the 64 rows may be cached");
});

Deno.test("scoreWindows() stops after a failure and when it is cancelled", async () => {
  let asked = 0;
  const failing = {
    score: () => ++asked > 2 ? Promise.reject(new Error("gone")) : Promise.resolve(new Float32Array(1)),
  };
  const windows = Array(50).fill({ ids: [0, 0], from: 0 });
  await assert.rejects(scoreWindows(failing, windows), /gone/);
  await new Promise((done) => setTimeout(done));
  assert.ok(asked <= 2 + 32, `${asked} asked`);
  const signal = AbortSignal.abort(new Error("enough"));
  await assert.rejects(scoreWindows(engine(), windows, { signal }), /enough/);
});
