import assert from "node:assert/strict";
import { type Matrix, matrix, transpose } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { correctedColumns, splitOf } from "./correct.ts";
import { DAMPING } from "./damped_moments.ts";
import { Elimination } from "./elimination.ts";

/** The damping's share of what correction could do, and f32. */
const TOLERANCE = 0.02;
/** Products and sums are f32, of terms up to 1 / damping times as large as what they leave. */
const F32_TOLERANCE = 1e-4;

const linalg: Linalg = {
  multiply(A, B, { transA, transB } = {}) {
    const left = transA ? transpose(A) : A, right = transB ? transpose(B) : B;
    const out = matrix(left.rows, right.cols);
    for (let i = 0; i < left.rows; i++) {
      for (let j = 0; j < right.cols; j++) {
        let sum = 0;
        for (let k = 0; k < left.cols; k++) {
          sum += left.data[i * left.cols + k] * right.data[k * right.cols + j];
        }
        out.data[i * right.cols + j] = sum;
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
    const elimination = await Elimination.of(W, { d, H }, linalg);
    const gone: number[] = [];
    let total = 0;
    for (const first of [8, 0]) {
      const group = range(width).map((i) => first + i);
      const alone = await elimination.copy().lossOf(group), cost = await elimination.copy().remove(group);
      assert.ok(Math.abs(cost / alone - 1) < F32_TOLERANCE, `removed ${cost}, asked ${alone}`);
      total += await elimination.remove(group);
      gone.push(...group);
      const kept = range(n).filter((j) => !gone.includes(j));
      const left = await correctedColumns(W, splitOf(n, kept), { H, linalg });
      const loss = energyOf(without(W, kept, left), H);
      assert.ok(Math.abs(total / loss - 1) < TOLERANCE, `width ${width}: ${total}, loss ${loss}`);
    }
  }
});

Deno.test("losses without H add up squares of |W| d, dead inputs cost nothing", async () => {
  const W = matrix(2, 4, Float32Array.of(1, 2, 3, 4, 0, 1, 0, -1));
  const d = Float32Array.of(1, 2, 0, 3), expected = [1, 20, 0, 153];
  const plain = await Elimination.of(W, { d, H: null }, linalg);
  assert.deepEqual(await Promise.all(range(4).map((j) => plain.lossOf([j]))), expected);
  assert.equal(await plain.lossOf([0, 3]), 154);
  const H = Float32Array.from({ length: 16 }, (_, at) => at % 5 === 0 ? d[at / 5] ** 2 : 0);
  const damped = await Elimination.of(W, { d, H }, linalg);
  for (const j of range(4)) {
    assert.ok(Math.abs(await damped.lossOf([j]) - expected[j]) <= 0.002 * expected[j]);
  }
  for (const elimination of [plain, damped]) {
    assert.deepEqual(await cheapestFirst(elimination, 4), [2, 0, 1, 3]);
  }
});

Deno.test("of inputs that repeat each other one stays dear", async () => {
  const M = normal(20, 4, 5);
  for (let t = 0; t < 20; t++) M.data[t * 4 + 3] = M.data[t * 4 + 2];
  const H = moments(M), W = normal(3, 4, 6);
  const elimination = await Elimination.of(W, { d: rootDiagonal(H, 4), H }, linalg);
  const first = elimination.cheapest();
  assert.ok(first === 2 || first === 3);
  const cost = await elimination.remove([first]);
  assert.ok(await elimination.lossOf([5 - first]) > 100 * cost);
});

async function cheapestFirst(elimination: Elimination, count: number): Promise<number[]> {
  const order: number[] = [];
  while (order.length < count) {
    order.push(elimination.cheapest());
    await elimination.remove([order.at(-1)!]);
  }
  return order;
}

/** The definition, in f64: the order in which inputs go and what each costs. */
function plainElimination(W: Matrix, H: Float32Array, count: number) {
  const n = W.cols, d = range(n).map((j) => Math.sqrt(H[j * n + j]));
  const columns = range(n).map((j) => range(W.rows).map((i) => W.data[i * n + j] * d[j]));
  const M = inverted(
    range(n).map((i) => range(n).map((j) => H[i * n + j] / (d[i] * d[j]) + (i === j ? DAMPING : 0))),
  );
  const left = new Set(range(n)), order: number[] = [], losses: number[] = [];
  const loss = (j: number) => columns[j].reduce((sum, x) => sum + x * x, 0) / M[j][j];
  for (let t = 0; t < count; t++) {
    const j = [...left].reduce((a, b) => loss(b) < loss(a) ? b : a);
    order.push(j);
    losses.push(loss(j));
    left.delete(j);
    const row = [...M[j]], gone = columns[j];
    for (const i of left) {
      const f = row[i] / row[j];
      for (const k of left) M[i][k] -= f * row[k];
      columns[i] = columns[i].map((x, r) => x - f * gone[r]);
    }
  }
  return { order, losses };
}

/** Gauss-Jordan without pivoting: A is positive definite. */
function inverted(A: number[][]): number[][] {
  const n = A.length, rows = A.map((row, i) => [...row, ...range(n).map((j) => +(i === j))]);
  for (let j = 0; j < n; j++) {
    const pivot = rows[j].map((x) => x / rows[j][j]);
    rows[j] = pivot;
    for (let i = 0; i < n; i++) {
      const f = rows[i][j];
      if (i !== j && f !== 0) { for (let k = j; k < 2 * n; k++) rows[i][k] -= f * pivot[k]; }
    }
  }
  return rows.map((row) => row.slice(n));
}

Deno.test("inputs go in the order of plain f64 elimination, at its losses, also in several panels and batches", async () => {
  for (const [n, tokens, count] of [[30, 20, 30], [280, 300, 100]]) {
    const W = normal(7, n, n), H = moments(normal(tokens, n, n + 1));
    const expected = plainElimination(W, H, count);
    const elimination = await Elimination.of(W, { d: rootDiagonal(H, n), H }, linalg);
    assert.deepEqual(await cheapestFirst(elimination.copy(), count), expected.order);
    for (const [t, j] of expected.order.entries()) {
      const loss = await elimination.remove([j]);
      assert.ok(
        Math.abs(loss / expected.losses[t] - 1) < F32_TOLERANCE,
        `${t}: ${loss}, ${expected.losses[t]}`,
      );
    }
  }
});

Deno.test("losses stay finite and keep their unit over unpleasant layers", async () => {
  const n = 80, W = normal(6, n, 7), X = normal(40, n, 8); // fewer tokens than inputs
  for (let t = 0; t < 40; t++) {
    for (let j = 0; j < n; j++) {
      if (j % 5 === 1) X.data[t * n + j] = 0;
      else if (j % 5 === 2) X.data[t * n + j] = X.data[t * n + j - 2];
      else if (j % 5 === 3) X.data[t * n + j] = 3; // a constant
      else X.data[t * n + j] *= 10 ** (j % 9 - 4);
    }
  }
  const H = moments(X),
    losses = async (power: number) => {
      const large = matrix(W.rows, n, W.data.map((x) => x * power));
      const elimination = await Elimination.of(large, { d: rootDiagonal(H, n), H }, linalg);
      const found: number[] = [];
      while (found.length < n) found.push(await elimination.remove([elimination.cheapest()]));
      const left = await correctedColumns(large, splitOf(n, range(n).filter((j) => j % 2)), { H, linalg });
      assert.ok(left.data.every(Number.isFinite));
      return found;
    };
  const plain = await losses(1), tiny = await losses(2 ** -90);
  assert.ok(plain.every((x) => Number.isFinite(x) && x >= 0));
  assert.deepEqual(tiny.map((x) => x * 2 ** 180), plain);
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
