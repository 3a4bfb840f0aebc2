import assert from "node:assert/strict";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { correctedColumns, splitOf } from "./correct.ts";
import { Elimination } from "./elimination.ts";

/** The damping's share of what correction could do, and f32. */
const TOLERANCE = 0.02;

const linalg: Linalg = {
  multiply(A, B, { transA, transB } = {}) {
    assert.ok(!transA && !transB);
    const out = matrix(A.rows, B.cols);
    for (let i = 0; i < A.rows; i++) {
      for (let j = 0; j < B.cols; j++) {
        let sum = 0;
        for (let k = 0; k < A.cols; k++) sum += A.data[i * A.cols + k] * B.data[k * B.cols + j];
        out.data[i * B.cols + j] = sum;
      }
    }
    return Promise.resolve(out);
  },
};

function normal(rows: number, cols: number, seed: number): Matrix {
  const random = seededRandom(seed), out = matrix(rows, cols);
  for (let i = 0; i < out.data.length; i++) out.data[i] = random.normal();
  return out;
}

/** X'X / tokens of inputs that know each other: X = Z M. */
function moments(M: Matrix): Float32Array<ArrayBuffer> {
  const H = new Float32Array(M.cols ** 2);
  for (let i = 0; i < M.cols; i++) {
    for (let j = 0; j < M.cols; j++) {
      for (let k = 0; k < M.rows; k++) H[i * M.cols + j] += M.data[k * M.cols + i] * M.data[k * M.cols + j];
    }
  }
  return H;
}
const rootDiagonal = (H: Float32Array, n: number) =>
  Float32Array.from({ length: n }, (_, j) => Math.sqrt(H[j * n + j]));

/** tr E H E' */
function energyOf(E: Matrix, H: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < E.rows; i++) {
    for (let j = 0; j < E.cols; j++) {
      for (let k = 0; k < E.cols; k++) {
        sum += E.data[i * E.cols + j] * H[j * E.cols + k] * E.data[i * E.cols + k];
      }
    }
  }
  return sum;
}
function without(W: Matrix, kept: readonly number[], left: Matrix): Matrix {
  const E = matrix(W.rows, W.cols, W.data.slice());
  for (let i = 0; i < W.rows; i++) {
    kept.forEach((j, a) => E.data[i * W.cols + j] -= left.data[i * kept.length + a]);
  }
  return E;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);

Deno.test("losses with H are what correction leaves, of one group and of all that went before", async () => {
  const n = 12, W = normal(5, n, 1), H = moments(normal(20, n, 2)), d = rootDiagonal(H, n);
  for (const width of [1, 4]) {
    const elimination = Elimination.of(W, { d, H });
    const gone: number[] = [];
    let total = 0;
    for (const first of [8, 0]) {
      const group = range(width).map((i) => first + i);
      const alone = elimination.copy().lossOf(group), cost = elimination.copy().remove(group);
      assert.ok(Math.abs(cost / alone - 1) < 1e-6, `removed ${cost}, asked ${alone}`);
      total += elimination.remove(group);
      gone.push(...group);
      const kept = range(n).filter((j) => !gone.includes(j));
      const left = await correctedColumns(W, splitOf(n, kept), { H, linalg });
      const loss = energyOf(without(W, kept, left), H);
      assert.ok(Math.abs(total / loss - 1) < TOLERANCE, `width ${width}: ${total}, loss ${loss}`);
    }
  }
});

Deno.test("losses without H add up squares of |W| d, dead inputs cost nothing", () => {
  const W = matrix(2, 4, Float32Array.of(1, 2, 3, 4, 0, 1, 0, -1));
  const d = Float32Array.of(1, 2, 0, 3), expected = [1, 20, 0, 153];
  const plain = Elimination.of(W, { d, H: null });
  assert.deepEqual(range(4).map((j) => plain.lossOf([j])), expected);
  assert.equal(plain.lossOf([0, 3]), 154);
  const H = Float32Array.from({ length: 16 }, (_, at) => at % 5 === 0 ? d[at / 5] ** 2 : 0);
  const damped = Elimination.of(W, { d, H });
  expected.forEach((loss, j) => assert.ok(Math.abs(damped.lossOf([j]) - loss) <= 0.002 * loss));
  const order = [plain, damped].map((e) =>
    range(4).map(() => {
      const j = e.cheapest();
      e.remove([j]);
      return j;
    })
  );
  assert.deepEqual(order, [[2, 0, 1, 3], [2, 0, 1, 3]]);
});

Deno.test("of inputs that repeat each other one stays dear", () => {
  const M = normal(20, 4, 5);
  for (let t = 0; t < 20; t++) M.data[t * 4 + 3] = M.data[t * 4 + 2];
  const H = moments(M), elimination = Elimination.of(normal(3, 4, 6), { d: rootDiagonal(H, 4), H });
  const first = elimination.cheapest();
  assert.ok(first === 2 || first === 3);
  const cost = elimination.remove([first]);
  assert.ok(elimination.lossOf([5 - first]) > 100 * cost);
});

Deno.test("correctedColumns() hands on what is a linear combination of kept inputs, dead and repeated ones included", async () => {
  const n = 8, base = normal(30, 5, 3);
  const M = matrix(30, n); // inputs 5 = 0 + 2 x 1, 6 = 3 again, 7 is dead
  for (let t = 0; t < 30; t++) {
    const x = base.data.subarray(t * 5, t * 5 + 5);
    M.data.set([...x, x[0] + 2 * x[1], x[3], 0], t * n);
  }
  const W = normal(4, n, 4), H = moments(M), kept = [0, 1, 2, 3, 4];
  const left = await correctedColumns(W, splitOf(n, kept), { H, linalg });
  const lost = energyOf(without(W, kept, left), H);
  assert.ok(lost < 1e-5 * energyOf(W, H), `${lost} of ${energyOf(W, H)}`);
  const bare = await correctedColumns(W, splitOf(n, kept), { H: null, linalg });
  assert.ok(energyOf(without(W, kept, bare), H) > 0.1 * energyOf(W, H));
});
