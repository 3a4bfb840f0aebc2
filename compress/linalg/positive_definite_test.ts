import assert from "node:assert/strict";
import { seededRandom } from "../random.ts";
import { type Matrix, matrix } from "./matrix.ts";
import { choleskyFactor, dampedFactor, inverseFactor } from "./positive_definite.ts";
import { LinalgRuntime } from "./runtime.ts";

/** f32 products of n = 300 at a condition number of about 100. */
const TOLERANCE = 1e-3;

/** X'X / tokens, well conditioned; with more columns than one block has. */
function moments(n: number): Matrix {
  const random = seededRandom(41), H = matrix(n, n);
  const X = Array.from({ length: 4 * n }, () => Float64Array.from({ length: n }, () => random.normal()));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (const x of X) sum += x[i] * x[j];
      H.data[i * n + j] = H.data[j * n + i] = sum / X.length;
    }
  }
  return H;
}

const triangle = (M: Matrix, side: "lower" | "upper") =>
  M.data.every((x, at) => {
    const below = Math.floor(at / M.cols) - at % M.cols;
    return x === 0 || (side === "lower" ? below >= 0 : below <= 0);
  });

for (const n of [1, 128, 300]) {
  Deno.test(`choleskyFactor() and inverseFactor() of [${n}, ${n}]`, async () => {
    const linalg = await LinalgRuntime.create();
    const H = moments(n);
    const C = (await choleskyFactor(H, linalg))!, U = (await inverseFactor(H, linalg))!;
    assert.ok(triangle(C, "lower") && triangle(U, "upper"));
    const again = await linalg.multiply(C, C, { transB: true });
    again.data.forEach((x, at) => assert.ok(Math.abs(x - H.data[at]) < TOLERANCE));
    const one = await linalg.multiply(await linalg.multiply(U, U, { transA: true }), H);
    one.data.forEach((x, at) => assert.ok(Math.abs(x - +(at % (n + 1) === 0)) < TOLERANCE, `${at}: ${x}`));
    await linalg.close();
  });
}

Deno.test("dampedFactor() adds what an indefinite matrix needs, and refuses NaN", async () => {
  const linalg = await LinalgRuntime.create();
  const H = matrix(2, 2, Float32Array.of(1, 3, 3, 1)); // eigenvalues 4 and -2
  const factor = (M: Matrix) => choleskyFactor(M, linalg);
  assert.equal(await factor(H), null);
  const C = await dampedFactor(H, 0.01, factor);
  assert.ok(Math.abs(C.data[0] ** 2 - 11) < 1e-5); // 0.01, 0.1, 1, then 10
  await assert.rejects(dampedFactor(matrix(1, 1, Float32Array.of(NaN)), 0.01, factor), /not finite/);
  await linalg.close();
});
