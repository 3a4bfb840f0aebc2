import assert from "node:assert/strict";
import { matrix } from "./linalg/matrix.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import {
  balanceFactors,
  fromPackedColumns,
  inputScale,
  layerError,
  packRounded,
  reconstruct,
  toPackedColumns,
} from "./quantize.ts";
import { GRIDS } from "./quantizers/grid.ts";
import { seededRandom } from "./random.ts";

/** 7-bit codes of normal values: steps of ~4 / 63 standard deviations, squared and divided by 12. */
const INT8_ERROR = 1e-3;

Deno.test("inputScale() is d^-½ around 1; dead columns keep 1", () => {
  const scale = inputScale(Float32Array.of(4, 0, 0.25, 1), { rounding: "nearest" });
  assert.deepEqual([...scale], [0.5, 1, 2, 1]);
  assert.deepEqual([...inputScale(new Float32Array(2), { rounding: "feedback" })], [1, 1]);
});

Deno.test("balanceFactors() keeps the product and evens the sizes", async () => {
  const linalg = await LinalgRuntime.create();
  const U = matrix(2, 2, Float32Array.of(8, 0, 0, 0)), V = matrix(2, 2, Float32Array.of(0, 2, 3, 4));
  const balanced = balanceFactors(U, V);
  assert.deepEqual([...balanced.U.data], [4, 0, 0, 0]); // the second rank is empty: untouched
  assert.deepEqual([...balanced.V.data], [0, 4, 3, 4]);
  assert.deepEqual((await linalg.multiply(balanced.U, balanced.V)).data, (await linalg.multiply(U, V)).data);
  await linalg.close();
});

Deno.test("reconstruct() of packed parts in the scaled domain is S + L up to rounding", async () => {
  const linalg = await LinalgRuntime.create(), random = seededRandom(1);
  const [dOut, dIn, rank] = [13, 130, 5];
  const d = Float32Array.from({ length: dIn }, (_, j) => j === 7 ? 0 : Math.exp(random.normal()));
  const U = matrix(dOut, rank, Float32Array.from({ length: dOut * rank }, () => random.normal()));
  const V = matrix(rank, dIn, Float32Array.from({ length: dIn * rank }, () => random.normal()));
  const W = await linalg.multiply(U, V);
  const S = matrix(dOut, dIn);
  for (let i = 0; i < S.data.length; i += 4) {
    S.data[i] = 3 * random.normal();
    W.data[i] += S.data[i];
  }
  const scale = inputScale(d, { rounding: "nearest" });
  const options = { grid: GRIDS.int8, moments: null, linalg };
  const windows = { kind: "windows", windows: 8, bits: 8, blockChunks: 2 } as const;
  for (const format of [windows, { kind: "q8" }] as const) {
    const balanced = balanceFactors(U, toPackedColumns(V, scale));
    const tensors = [
      await packRounded("s", toPackedColumns(S, scale), format, options),
      await packRounded("u", balanced.U, { kind: "q8" }, options),
      await packRounded("v", balanced.V, { kind: "q8" }, options),
    ];
    const R = fromPackedColumns(await reconstruct(tensors, linalg), scale);
    const error = layerError(W, R, d);
    assert.ok(error > 0 && error < INT8_ERROR, `${format.kind}: ${error}`);
  }
  await linalg.close();
});

Deno.test("layerError() of a layer without input is 0", () => {
  const W = matrix(1, 2, Float32Array.of(1, 2));
  assert.equal(layerError(W, matrix(1, 2), new Float32Array(2)), 0);
});
