import assert from "node:assert/strict";
import { matrix } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { roundingProbe } from "./rounding_errors.ts";

Deno.test("roundingProbe() measures less error in 8 bits than in 4, and less with feedback", async () => {
  const linalg = await LinalgRuntime.create(), random = seededRandom(1), n = 96, tokens = 200;
  const H = new Float32Array(n * n);
  for (let t = 0; t < tokens; t++) {
    const common = random.normal(), x = Float64Array.from({ length: n }, () => common + random.normal());
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) H[i * n + j] += x[i] * x[j] / tokens;
  }
  const d = Float32Array.from({ length: n }, (_, j) => Math.sqrt(H[j * n + j]));
  const W = matrix(300, n, Float32Array.from({ length: 300 * n }, () => random.normal())); // more rows than are looked at
  const errors = async (rounding: "nearest" | "feedback") =>
    await (await roundingProbe({ d, H }, { rounding, linalg }))(W);
  const near = await errors("nearest"), fed = await errors("feedback");
  assert.ok(near.int8 < near.int4 / 20 && fed.int8 < fed.int4 / 20, JSON.stringify([near, fed]));
  assert.ok(fed.int4 < 0.7 * near.int4 && near.int4 < 0.05, JSON.stringify([near, fed]));
  const dead = await roundingProbe({ d: new Float32Array(n), H: new Float32Array(n * n) }, {
    rounding: "feedback",
    linalg,
  });
  assert.deepEqual(await dead(W), { int8: 0, int4: 0 });
  await linalg.close();
});
