import assert from "node:assert/strict";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { toShared } from "../statistics.ts";
import { Buffers } from "./buffers.ts";
import { toModel, toTrained } from "./coordinates.ts";
import { materialise } from "./layer_gradient.ts";
import { allocateBlock } from "./parameters.ts";

const F32 = 1e-5, DOUT = 6, DIN = 9, RANK = 2;

Deno.test("toTrained() changes what stands for W, not W; toModel() brings the model's units back", async () => {
  const random = seededRandom(1), places = [0, 3, 9, 17, 32, 53];
  const indices = new Uint32Array(new SharedArrayBuffer(4 * places.length));
  indices.set(places);
  const columns = toShared(Float32Array.from({ length: DIN }, (_, j) => j === 4 ? 0 : 2 ** (j - 4)));
  const layer = { name: "q" as const, shape: [DOUT, DIN] as const, rank: RANK, indices };
  const block = (units: boolean) => {
    const made = allocateBlock({ layers: [units ? { ...layer, columns } : layer], norms: {}, fixed: {} });
    for (let i = 0; i < made.values.length; i++) made.values[i] = random.normal();
    return made;
  };
  const plain = block(false), trained = block(true), [{ U, V, kept }] = trained.layers;
  V.forEach((_, i) => V[i] *= i % DIN === 4 ? 0 : 1); // of a dead column
  trained.values.forEach((x, i) => plain.values[i] = x);
  const linalg = await LinalgRuntime.create(), context = { linalg, buffers: new Buffers() };
  const W = async (of: typeof plain) => {
    const tensor = { data: new Float32Array(DOUT * DIN), shape: [DOUT, DIN] };
    await materialise(of.layers[0], tensor, context);
    return tensor.data;
  };
  const near = (found: Float32Array, wanted: Float32Array) =>
    wanted.forEach((x, i) => assert.ok(Math.abs(found[i] - x) < F32 * (1 + Math.abs(x)), `${i}`));
  const wanted = await W(plain);

  toTrained(trained);
  near(await W(trained), wanted);
  const lengths = (r: number) => [
    Math.hypot(...Array.from({ length: DOUT }, (_, i) => U[i * RANK + r])),
    Math.hypot(...V.subarray(r * DIN, (r + 1) * DIN)),
  ];
  for (let r = 0; r < RANK; r++) assert.ok(Math.abs(lengths(r)[0] / lengths(r)[1] - 1) < F32);

  toModel(trained);
  near(kept.values, plain.layers[0].kept.values);
  plain.values.set(trained.values);
  near(await W(plain), wanted);
  await linalg.close();
});
