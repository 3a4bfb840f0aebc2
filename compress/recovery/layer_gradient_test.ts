import assert from "node:assert/strict";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { Buffers } from "./buffers.ts";
import { addLayerGradient, materialise } from "./layer_gradient.ts";
import { allocateBlock } from "./parameters.ts";

/** Sums of a few dozen products in f32. */
const F32 = 1e-5;

const DOUT = 12, DIN = 20;

function layerOf(rank: number) {
  const random = seededRandom(5);
  const places = Array.from({ length: DOUT * DIN }, (_, at) => at).filter(() => random.next() < 0.4);
  const indices = new Uint32Array(new SharedArrayBuffer(4 * places.length));
  indices.set(places);
  const layers = [{ name: "q" as const, shape: [DOUT, DIN] as const, rank, indices }];
  const block = allocateBlock({ layers, norms: {}, fixed: {} });
  for (let i = 0; i < block.values.length; i++) block.values[i] = random.normal();
  return { block, layer: block.layers[0], random };
}

function near(found: ArrayLike<number>, wanted: ArrayLike<number>): void {
  assert.equal(found.length, wanted.length);
  for (let i = 0; i < found.length; i++) {
    assert.ok(Math.abs(found[i] - wanted[i]) < F32 * (1 + Math.abs(wanted[i])), `${i}`);
  }
}

for (const rank of [0, 3]) {
  Deno.test(`materialise() is S + U V, and gradients are those of it, at rank ${rank}`, async () => {
    const { layer, random } = layerOf(rank), { U, V, kept } = layer;
    const linalg = await LinalgRuntime.create(), context = { linalg, buffers: new Buffers() };
    const W = context.buffers.tensor("W", [DOUT, DIN]);
    W.data.fill(NaN); // whatever it held before
    await materialise(layer, W, context);
    const wanted = new Float64Array(DOUT * DIN);
    kept.indices.forEach((at, i) => wanted[at] = kept.values[i]);
    const factors = (visit: (row: number, r: number, column: number) => void) => {
      for (let i = 0; i < DOUT; i++) {
        for (let r = 0; r < rank; r++) for (let j = 0; j < DIN; j++) visit(i, r, j);
      }
    };
    factors((i, r, j) => wanted[i * DIN + j] += U[i * rank + r] * V[r * DIN + j]);
    near(W.data, wanted);

    const dW = { data: Float32Array.from({ length: DOUT * DIN }, () => random.normal()), shape: [DOUT, DIN] };
    const to = { U: U.map(() => 1), V: V.map(() => 1), kept: kept.values.map(() => 1) };
    const dU = new Float64Array(U.length).fill(1), dV = new Float64Array(V.length).fill(1);
    factors((i, r, j) => {
      dU[i * rank + r] += dW.data[i * DIN + j] * V[r * DIN + j];
      dV[r * DIN + j] += U[i * rank + r] * dW.data[i * DIN + j];
    });
    const shared = (values: Float32Array) => {
      const out = new Float32Array(new SharedArrayBuffer(4 * values.length));
      out.set(values);
      return out;
    };
    const sums = { U: shared(to.U), V: shared(to.V), kept: shared(to.kept) };
    await addLayerGradient(layer, dW, sums, context);
    near(sums.U, dU);
    near(sums.V, dV);
    near(sums.kept, Array.from(kept.indices, (at) => 1 + dW.data[at]));
    await linalg.close();
  });
}
