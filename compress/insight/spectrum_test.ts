import assert from "node:assert/strict";
import { ENERGY_SHARES, SPECTRUM_STEPS } from "../../models/formats/insight_file.ts";
import { householder } from "../linalg/factor.ts";
import { type Matrix, matrix, scaleColumns, transpose } from "../linalg/matrix.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { singularValues, spectrumOf } from "./spectrum.ts";

/** f32 weights and f64 eigenvalues of A'A: half the digits of the latter are left to the smallest values. */
const EXACT_TOLERANCE = 1e-4;
/** Of the sketch at the steps of the spectrum and in shares of the energy; measured on SmolLM2: 0.02 and 0.01. */
const SKETCH_TOLERANCE = 0.04;

const linalg = await LinalgRuntime.create();

function orthonormal(rows: number, cols: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return householder(matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.normal())));
}

/** A `[rows, cols]` matrix with these singular values. */
async function withValues(rows: number, cols: number, sigma: readonly number[]): Promise<Matrix> {
  const U = orthonormal(rows, sigma.length, 1), V = orthonormal(cols, sigma.length, 2);
  return await linalg.multiply(scaleColumns(U, sigma), V, { transB: true });
}

const close = (actual: number, expected: number, tolerance: number, what: string) =>
  assert.ok(Math.abs(actual - expected) <= tolerance, `${what}: ${actual}, expected ${expected}`);

Deno.test("singularValues() finds those of a small matrix, whichever side is longer", async () => {
  const sigma = [9, 4, 4, 1, 0.25, 0];
  const tall = await withValues(20, 6, sigma);
  for (const A of [tall, transpose(tall)]) {
    const { method, values } = await singularValues(A, linalg);
    assert.equal(method, "exact");
    values.forEach(({ value, weight }, i) => {
      assert.equal(weight, 1);
      close(value, sigma[i], 9 * EXACT_TOLERANCE, `σ${i}`);
    });
  }
});

Deno.test("spectrumOf() a known matrix: quantiles, effective rank, energies", async () => {
  const A = await withValues(64, 64, Array.from({ length: 64 }, (_, i) => i < 2 ? 3 : i < 4 ? 1 : 0));
  const s = await spectrumOf(A, 2, linalg);
  close(s.largest, 3, EXACT_TOLERANCE * 3, "largest");
  close(s.quantiles[0], 1, 0, "first");
  close(s.quantiles[SPECTRUM_STEPS], 0, EXACT_TOLERANCE, "last");
  const p = [0.45, 0.45, 0.05, 0.05]; // 9, 9, 1, 1 of 20
  close(s.effectiveRank, Math.exp(-p.reduce((sum, x) => sum + x * Math.log(x), 0)), 1e-3, "effective rank");
  close(s.energyOfRank!, 0.9, EXACT_TOLERANCE, "energy of rank 2");
  close(s.energy[0], 0.45, EXACT_TOLERANCE, "energy of 1/64");
  assert.equal((await spectrumOf(A, 0, linalg)).energyOfRank, null);
});

for (
  const [name, at] of Object.entries<(i: number) => number>({
    "falling evenly": (i) => 1 - i / 260,
    "with one direction that holds nearly all": (i) => i === 0 ? 200 : 1 - i / 260,
    "of few directions": (i) => i < 12 ? 1 / (1 + i) : 0,
  })
) {
  Deno.test(`the sketch agrees with a large matrix's singular values: ${name}`, async () => {
    const n = 256, sigma = Array.from({ length: n }, (_, i) => at(i));
    const A = await withValues(320, n, sigma);
    const s = await spectrumOf(A, 20, linalg);
    assert.equal(s.method, "sketch");
    close(s.largest / sigma[0], 1, SKETCH_TOLERANCE, "largest");
    const all = sigma.reduce((sum, x) => sum + x * x, 0);
    const energy = (count: number) => sigma.slice(0, count).reduce((sum, x) => sum + x * x, 0) / all;
    ENERGY_SHARES.forEach((share, i) =>
      close(s.energy[i], energy(share * n), SKETCH_TOLERANCE, `energy ${share}`)
    );
    close(s.energyOfRank!, energy(20), SKETCH_TOLERANCE, "energy of rank");
    const entropy = -sigma.reduce((sum, x) => sum + (x > 0 ? x * x / all * Math.log(x * x / all) : 0), 0);
    close(s.effectiveRank / Math.exp(entropy), 1, SKETCH_TOLERANCE, "effective rank");
    if (name !== "of few directions") { // a step down lies between two steps of the spectrum
      const scale = sigma[0] > 1 ? sigma[1] / sigma[0] : 1;
      for (let i = 1; i <= SPECTRUM_STEPS; i++) {
        const expected = sigma[Math.round(i / SPECTRUM_STEPS * (n - 1))] / sigma[0];
        close(s.quantiles[i], expected, SKETCH_TOLERANCE * scale, `step ${i}`);
      }
    }
  });
}

Deno.test("a matrix of zeros has no spectrum, and the sizes of weights do not matter", async () => {
  for (const n of [4, 200]) {
    const { largest, quantiles, effectiveRank, energy } = await spectrumOf(matrix(n, n), 1, linalg);
    assert.deepEqual([largest, effectiveRank], [0, 0]);
    assert.ok([...quantiles, ...energy].every((x) => x === 0));
  }
  const A = await withValues(200, 180, Array.from({ length: 180 }, (_, i) => 1 / (i + 1)));
  const spectra = await Promise.all(
    [1e-15, 1, 1e15].map((f) => spectrumOf({ ...A, data: A.data.map((x) => x * f) }, 3, linalg)),
  );
  for (const s of spectra) close(s.effectiveRank, spectra[1].effectiveRank, 0.01, "effective rank");
});
