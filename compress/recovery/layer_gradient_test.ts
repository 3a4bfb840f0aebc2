import assert from "node:assert/strict";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { toShared } from "../statistics.ts";
import { Buffers } from "./buffers.ts";
import { addLayerGradient, materialise } from "./layer_gradient.ts";
import { allocateBlock } from "./parameters.ts";

/** Sums of a few dozen products in f32. */
const F32 = 1e-5;

const DOUT = 12, DIN = 20;

function layerOf(rank: number, units: boolean) {
  const random = seededRandom(5);
  const places = Array.from({ length: DOUT * DIN }, (_, at) => at).filter(() => random.next() < 0.4);
  const indices = new Uint32Array(new SharedArrayBuffer(4 * places.length));
  indices.set(places);
  const columns = toShared(Float32Array.from({ length: DIN }, () => 0.5 + random.next()));
  const layer = { name: "q" as const, shape: [DOUT, DIN] as const, rank, indices };
  const layers = [units ? { ...layer, columns } : layer];
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

for (const [rank, units] of [[0, false], [3, false], [0, true], [3, true]] as const) {
  const said = `at rank ${rank}${units ? ", columns in units" : ""}`;
  Deno.test(`materialise() is S + U V, and gradients are those of it, ${said}`, async () => {
    const { layer, random } = layerOf(rank, units), { U, V, kept } = layer;
    const unit = (column: number) => layer.columns?.[column] ?? 1;
    const linalg = await LinalgRuntime.create(), context = { linalg, buffers: new Buffers() };
    const W = context.buffers.tensor("W", [DOUT, DIN]);
    W.data.fill(NaN); // whatever it held before
    await materialise(layer, W, context);
    const wanted = new Float64Array(DOUT * DIN);
    kept.indices.forEach((at, i) => wanted[at] = kept.values[i] * unit(at % DIN));
    const factors = (visit: (row: number, r: number, column: number) => void) => {
      for (let i = 0; i < DOUT; i++) {
        for (let r = 0; r < rank; r++) for (let j = 0; j < DIN; j++) visit(i, r, j);
      }
    };
    factors((i, r, j) => wanted[i * DIN + j] += U[i * rank + r] * V[r * DIN + j] * unit(j));
    near(W.data, wanted);

    const dW = { data: Float32Array.from({ length: DOUT * DIN }, () => random.normal()), shape: [DOUT, DIN] };
    const ones = (values: Float32Array) => toShared(values.map(() => 1));
    const sums = { U: ones(U), V: ones(V), kept: ones(kept.values) };
    const dU = new Float64Array(U.length).fill(1), dV = new Float64Array(V.length).fill(1);
    factors((i, r, j) => {
      dU[i * rank + r] += dW.data[i * DIN + j] * unit(j) * V[r * DIN + j];
      dV[r * DIN + j] += U[i * rank + r] * dW.data[i * DIN + j] * unit(j);
    });
    await addLayerGradient(layer, dW, sums, context);
    near(sums.U, dU);
    near(sums.V, dV);
    near(sums.kept, Array.from(kept.indices, (at) => 1 + dW.data[at] * unit(at % DIN)));
    await linalg.close();
  });
}
