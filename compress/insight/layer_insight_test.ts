import assert from "node:assert/strict";
import { SCALE_BINS } from "../../models/formats/insight_file.ts";
import { matrix } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { layerError, packRounded } from "../quantize.ts";
import { GRIDS } from "../quantizers/grid.ts";
import { seededRandom } from "../random.ts";
import { inputInsight } from "./inputs.ts";
import { layerInsight, type MeasuredLayer } from "./layer_insight.ts";

const linalg = await LinalgRuntime.create();
const nothing: MeasuredLayer = { name: "q", W: null, R: null, tensors: [], d: null, H: null, plain: false };

function random(rows: number, cols: number, seed: number) {
  const { normal } = seededRandom(seed);
  return matrix(rows, cols, Float32Array.from({ length: rows * cols }, normal));
}

Deno.test("the error on inputs is the layer's error when inputs do not correlate, and not otherwise", async () => {
  const W = random(12, 8, 3), R = random(12, 8, 4), d = Float32Array.from({ length: 8 }, (_, i) => i / 4);
  const H = new Float32Array(64);
  for (let i = 0; i < 8; i++) H[i * 9] = d[i] ** 2;
  const { inputError } = await layerInsight({ ...nothing, W, R, d, H }, linalg);
  assert.ok(Math.abs(inputError! - layerError(W, R, d)) < 1e-5);
  // Two equal inputs: an error that they cancel costs nothing.
  const same = new Float32Array(4).fill(1);
  const two = { W: matrix(1, 2, Float32Array.of(3, 1)), R: matrix(1, 2, Float32Array.of(1, 3)), H: same };
  assert.equal((await layerInsight({ ...nothing, ...two }, linalg)).inputError, 0);
});

Deno.test("what cannot be known is null; dead inputs and dead weights are no trouble", async () => {
  const empty = { inputError: null, scaled: null, plain: null, windows: null };
  assert.deepEqual(await layerInsight(nothing, linalg), { name: "q", ...empty });
  const W = matrix(4, 6), H = new Float32Array(36), d = new Float32Array(6);
  const dead = await layerInsight({ ...nothing, W, R: W, d, H, plain: true }, linalg);
  assert.equal(dead.inputError, 0);
  assert.equal(dead.scaled!.effectiveRank, 0);
});

Deno.test("windows are counted where S has them", async () => {
  const S = matrix(1, 64), format = { kind: "windows", windows: 4, bits: 8, blockChunks: 1 } as const;
  S.data[3] = 1;
  const options = { grid: GRIDS.int8, moments: null, linalg };
  const { windows } = await layerInsight({
    ...nothing,
    tensors: [await packRounded("s", S, format, options)],
  }, linalg);
  assert.deepEqual([windows!.places, windows!.filled], [16, 1]);
  const dense = await layerInsight({
    ...nothing,
    tensors: [await packRounded("s", S, { kind: "q8" }, options)],
  }, linalg);
  assert.equal(dense.windows, null);
});

Deno.test("inputInsight() finds the columns that stand out", () => {
  const input = inputInsight("block.0.attn", Float32Array.of(1, 1, 0, 2, 1, 16, 1, 8));
  assert.deepEqual([input.columns, input.dead, input.median], [8, 1, 1]);
  assert.deepEqual(input.outlierColumns, [{ column: 5, ratio: 16 }, { column: 7, ratio: 8 }]);
  assert.equal(input.outlierCount, 2);
  assert.ok(Math.abs(input.rms - Math.sqrt(328 / 8)) < 1e-6);
  const perOctave = SCALE_BINS.count / (SCALE_BINS.to - SCALE_BINS.from);
  const bin = (octave: number) => (octave - SCALE_BINS.from) * perOctave;
  assert.deepEqual([0, 1, 3, 4].map((o) => input.histogram[bin(o)]), [4, 1, 1, 1]);
  const { median, rms, outlierCount } = inputInsight("block.0.o", new Float32Array(4));
  assert.deepEqual([median, rms, outlierCount], [0, 0, 0]);
});
