import assert from "node:assert/strict";
import { seededRandom } from "../random.ts";
import { cholesky, householder, invertLowerTriangle, orthonormalise, symmetricEigen } from "./factor.ts";
import { type Matrix, matrix, transpose, unitPower, unitSized } from "./matrix.ts";
import { LinalgRuntime } from "./runtime.ts";

/** f32 rounding of sums of up to ~100 products of unit size. */
const F32_TOLERANCE = 1e-5;
/** f64 rounding through n = 40 rotations and reflections. */
const F64_TOLERANCE = 1e-11;

function randomMatrix(rows: number, cols: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.normal()));
}

function multiplyReference(A: Matrix, B: Matrix): Float64Array {
  const out = new Float64Array(A.rows * B.cols);
  for (let i = 0; i < A.rows; i++) {
    for (let j = 0; j < B.cols; j++) {
      for (let k = 0; k < A.cols; k++) out[i * B.cols + j] += A.data[i * A.cols + k] * B.data[k * B.cols + j];
    }
  }
  return out;
}

function assertClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(Math.abs(actual[i] - expected[i]) <= tolerance, `${i}: ${actual[i]} is not ${expected[i]}`);
  }
}

const identity = (n: number) => Float64Array.from({ length: n * n }, (_, i) => +(i % (n + 1) === 0));

Deno.test("multiply() agrees with f64 for every transposition", async () => {
  const linalg = await LinalgRuntime.create();
  const A = randomMatrix(7, 11, 1), B = randomMatrix(11, 5, 2), expected = multiplyReference(A, B);
  for (const transA of [false, true]) {
    for (const transB of [false, true]) {
      const y = await linalg.multiply(transA ? transpose(A) : A, transB ? transpose(B) : B, {
        transA,
        transB,
      });
      assert.deepEqual([y.rows, y.cols], [7, 5]);
      assertClose(y.data, expected, F32_TOLERANCE);
    }
  }
  await assert.rejects(linalg.multiply(A, A), RangeError);
  await linalg.close();
});

Deno.test("multiply() of empty matrices is zero", async () => {
  const linalg = await LinalgRuntime.create();
  const y = await linalg.multiply(matrix(3, 0), matrix(0, 4));
  assert.deepEqual([...y.data], new Array(12).fill(0));
  await linalg.close();
});

Deno.test("cholesky() and invertLowerTriangle() invert a positive definite matrix", () => {
  const n = 12, A = randomMatrix(20, n, 3);
  const G = multiplyReference(transpose(A), A);
  const C = cholesky(G, n)!;
  const inverse = invertLowerTriangle(C, n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      let cc = 0, ci = 0;
      for (let k = 0; k < n; k++) {
        cc += C[i * n + k] * C[j * n + k];
        ci += C[i * n + k] * inverse[k * n + j];
      }
      assert.ok(Math.abs(cc - G[i * n + j]) < F64_TOLERANCE * 100);
      assert.ok(Math.abs(ci - +(i === j)) < F64_TOLERANCE);
    }
  }
  assert.equal(cholesky([1, 2, 2, 1], 2), null);
});

Deno.test("orthonormalise() keeps the span and is orthonormal, also when columns repeat", async () => {
  const linalg = await LinalgRuntime.create();
  const Y = randomMatrix(60, 9, 4);
  const Q = await orthonormalise(Y, linalg);
  assertClose(multiplyReference(transpose(Q), Q), identity(9), F32_TOLERANCE);
  const projected = await linalg.multiply(Q, await linalg.multiply(Q, Y, { transA: true }));
  assertClose(projected.data, Y.data, F32_TOLERANCE);
  for (let i = 0; i < 60; i++) Y.data[i * 9 + 8] = Y.data[i * 9];
  for (const P of [await orthonormalise(Y, linalg), householder(matrix(5, 3))]) {
    assertClose(multiplyReference(transpose(P), P), identity(P.cols), F32_TOLERANCE);
  }
  await linalg.close();
});

Deno.test("symmetricEigen() diagonalises", () => {
  for (const n of [1, 2, 3, 40]) {
    const B = randomMatrix(n, n, n),
      A = Float64Array.from({ length: n * n }, (_, at) => {
        const i = Math.floor(at / n), j = at % n;
        return B.data[i * n + j] + B.data[j * n + i];
      });
    const { values, vectors } = symmetricEigen(A, n);
    for (let i = 0; i < n; i++) {
      if (i) assert.ok(values[i] >= values[i - 1]);
      for (let r = 0; r < n; r++) {
        let av = 0;
        for (let c = 0; c < n; c++) av += A[r * n + c] * vectors[i * n + c];
        assert.ok(Math.abs(av - values[i] * vectors[i * n + r]) < F64_TOLERANCE * 10, `n ${n}, vector ${i}`);
      }
    }
  }
});

Deno.test("symmetricEigen() survives repeated and zero eigenvalues", () => {
  const { values } = symmetricEigen([2, 0, 0, 0, 2, 0, 0, 0, 0], 3);
  assertClose(values, [0, 2, 2], F64_TOLERANCE);
});

Deno.test("unitSized() brings the largest magnitude to [1, 2) and keeps every bit", () => {
  for (const size of [1e-40, 3e-12, 1, 1.999, 2, 7e37]) {
    const values = Float32Array.of(0.3 * size, -size, 0), power = unitPower(values);
    const [a, b] = unitSized(values);
    assert.ok(-b >= 1 && -b < 2, `${size}`);
    assert.deepEqual([Math.fround(a / power), Math.fround(b / power)], [values[0], values[1]]);
  }
  assert.equal(unitPower(new Float32Array(3)), 1);
});
