import assert from "node:assert/strict";
import { energy, matrix, subtract } from "./linalg/matrix.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import type { Decomposition } from "./methods/method.ts";
import { seededRandom } from "./random.ts";
import { refine, unitMoments } from "./refine.ts";
import { reselect } from "./reselect.ts";
import { entryChoice } from "./select.ts";

/** Inputs of strongly correlated columns: pairs that are nearly the same. */
function pairedInputs(n: number, seed: number) {
  const random = seededRandom(seed), tokens = 8 * n, H = new Float32Array(n * n);
  for (let t = 0; t < tokens; t++) {
    const x = new Float32Array(n);
    for (let j = 0; j < n; j += 2) {
      x[j] = random.normal() * (1 + j % 3);
      x[j + 1] = 0.8 * x[j] + 0.4 * random.normal();
    }
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) H[i * n + j] += x[i] * x[j] / tokens;
  }
  return { H, d: Float32Array.from({ length: n }, (_, i) => Math.sqrt(H[i * n + i])) };
}

/** trace of E H E' with the damped H, in f64 */
function errorOn(E: Float32Array, { rows, n, H }: { rows: number; n: number; H: Float32Array }): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) sum += E[r * n + i] * H[i * n + j] * E[r * n + j];
  }
  return sum;
}

function start(
  rows: number,
  n: number,
  kept: number,
  seed: number,
): Decomposition & { W: Decomposition["S"] } {
  const random = seededRandom(seed);
  const W = matrix(rows, n, Float32Array.from({ length: rows * n }, () => random.normal()));
  const choice = entryChoice({ kept, rank: 0, windows: null }, { dIn: n, blockChunks: 1 });
  const mask = choice.ofMatrix(matrix(rows, n, W.data.map(Math.abs)));
  return {
    W,
    S: matrix(rows, n, W.data.map((x, at) => mask[at] * x)),
    U: matrix(rows, 0),
    V: matrix(0, n),
    mask,
  };
}

for (const windows of [null, 7]) {
  Deno.test(`reselect() finds better entries than those of largest score (${windows ?? "no"} windows)`, async () => {
    const linalg = await LinalgRuntime.create(), rows = 24, n = 128, kept = windows ? 56 : 40;
    const { H, d } = pairedInputs(n, 1),
      moments = unitMoments(d, H),
      { W, ...plain } = start(rows, n, kept, 2);
    const choice = entryChoice({ kept, rank: 0, windows }, { dIn: n, blockChunks: 2 });
    const first = {
      ...plain,
      mask: choice.ofMatrix(matrix(rows, n, W.data.map((x, at) => Math.abs(x) * d[at % n]))),
    };
    const of = async (decomposition: Decomposition) => {
      const { S } = await refine(W, decomposition, { mask: decomposition.mask, moments, linalg });
      return errorOn(subtract(W, S).data, { rows, n, H });
    };
    const chosen = await reselect(W, first, { choice, kept, rounds: 6, moments, linalg });
    const count = chosen.mask.reduce((a, b) => a + b, 0);
    assert.equal(count, rows * kept);
    assert.ok(chosen.S.data.every((x, at) => chosen.mask[at] === 1 || x === 0));
    const before = await of(first), after = await of(chosen);
    assert.ok(after < 0.97 * before, `${after} against ${before}`);
    await linalg.close();
  });
}

Deno.test("reselect() returns its start when no round betters it", async () => {
  const linalg = await LinalgRuntime.create(), rows = 4, n = 16;
  const { H, d } = pairedInputs(n, 3), { W, ...plain } = start(rows, n, n, 4); // every entry is kept: no error at all
  const choice = entryChoice({ kept: n, rank: 0, windows: null }, { dIn: n, blockChunks: 1 });
  const chosen = await reselect(W, plain, { choice, kept: n, rounds: 3, moments: unitMoments(d, H), linalg });
  assert.ok(energy(subtract(chosen.S, W)) < 1e-9 * energy(W));
  await linalg.close();
});
