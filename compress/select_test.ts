import assert from "node:assert/strict";
import { matrix } from "./linalg/matrix.ts";
import { seededRandom } from "./random.ts";
import { entryChoice, keepPerGroup, keepPerRow } from "./select.ts";

Deno.test("keepPerRow() keeps exactly the k largest of every row, the leftmost of equal ones", () => {
  const random = seededRandom(8);
  const scores = matrix(50, 37, Float32Array.from({ length: 50 * 37 }, () => Math.floor(random.next() * 12)));
  for (const k of [0, 1, 5, 36, 37]) {
    const mask = keepPerRow(scores, k);
    for (let i = 0; i < 50; i++) {
      const row = Array.from(scores.data.subarray(i * 37, (i + 1) * 37));
      const order = row.map((_, j) => j).sort((a, b) => row[b] - row[a] || a - b).slice(0, k).sort((a, b) =>
        a - b
      );
      const kept = row.map((_, j) => j).filter((j) => mask[i * 37 + j]);
      assert.deepEqual(kept, order);
    }
  }
});

/** The subset of k of the scores with the largest sum, the leftmost of equal ones: all subsets tried. */
function bestSubset(scores: readonly number[], k: number): number[] {
  let best: number[] = [], most = -1;
  const visit = (from: number, chosen: number[], sum: number): void => {
    if (chosen.length === k) {
      if (sum > most) [most, best] = [sum, chosen];
      return;
    }
    for (let j = from; j < scores.length; j++) visit(j + 1, [...chosen, j], sum + scores[j]);
  };
  visit(0, [], 0);
  return best;
}

Deno.test("keepPerGroup() keeps the best N of every M, also where the row ends within a group", () => {
  const random = seededRandom(14);
  for (const [n, m, cols] of [[2, 4, 12], [4, 8, 20], [8, 16, 32], [3, 8, 19], [1, 4, 3]]) {
    const scores = matrix(
      3,
      cols,
      Float32Array.from({ length: 3 * cols }, () => Math.floor(random.next() * 9)),
    );
    const mask = keepPerGroup(scores, { n, m });
    for (let i = 0; i < 3; i++) {
      for (let from = 0; from < cols; from += m) {
        const group = Array.from(scores.data.subarray(i * cols + from, i * cols + Math.min(from + m, cols)));
        const kept = group.map((_, j) => j).filter((j) => mask[i * cols + from + j]);
        assert.deepEqual(kept, bestSubset(group, Math.round(n * group.length / m)));
      }
    }
  }
});

Deno.test("entryChoice() in ranges of columns keeps as much as in the whole matrix", () => {
  const random = seededRandom(15), rows = 6, cols = 300;
  const scores = matrix(rows, cols, Float32Array.from({ length: rows * cols }, () => random.next()));
  const count = (mask: Uint8Array) => mask.reduce((n, x) => n + x, 0);
  for (
    const budget of [
      { kept: 113, rank: 0, windows: null },
      { kept: 0, rank: 0, windows: null },
      { kept: 300, rank: 0, windows: null },
      { kept: 150, rank: 0, windows: 8 },
      { kept: 150, rank: 0, windows: null, groups: { n: 2, m: 4 } },
    ]
  ) {
    const choice = entryChoice(budget, { dIn: cols, blockChunks: 2 });
    let kept = 0;
    for (let from = 0; from < cols; from += choice.span) {
      const width = Math.min(choice.span, cols - from), part = matrix(rows, width);
      for (let at = 0; at < part.data.length; at++) {
        part.data[at] = scores.data[Math.floor(at / width) * cols + from + at % width];
      }
      kept += count(choice.ofColumns(part, from));
    }
    assert.equal(kept, count(choice.ofMatrix(scores)), JSON.stringify(budget));
    if (budget.windows === null) assert.equal(kept, rows * budget.kept);
  }
});
