import assert from "node:assert/strict";
import fc from "fast-check";
import { resizeGrid } from "./bicubic.ts";

const side = fc.integer({ min: 1, max: 9 });
const grid = fc.record({ rows: side, columns: side });

Deno.test("resizeGrid() keeps a table of one value, and any table at its own size", () => {
  fc.assert(fc.property(grid, grid, fc.boolean(), (from, to, antialias) => {
    const flat = new Float32Array(from.rows * from.columns * 2).fill(3);
    const resized = resizeGrid(flat, { from, to, antialias });
    assert.equal(resized.length, to.rows * to.columns * 2);
    assert.ok(resized.every((v) => Math.abs(v - 3) < 1e-5));
    const table = Float32Array.from(flat, (_, i) => Math.sin(i));
    assert.deepEqual(resizeGrid(table, { from, to: from, antialias }), table);
  }));
});

Deno.test("resizeGrid() turns with its table", () => {
  const from = { rows: 3, columns: 5 }, to = { rows: 4, columns: 2 };
  const turn = (table: Float32Array, { rows, columns }: typeof from) =>
    Float32Array.from(table, (_, i) => table[(i % rows) * columns + Math.floor(i / rows)]);
  const table = Float32Array.from({ length: 15 }, (_, i) => Math.cos(i * i));
  for (const antialias of [false, true]) {
    const turned = resizeGrid(turn(table, from), {
      from: { rows: 5, columns: 3 },
      to: { rows: 2, columns: 4 },
      antialias,
    });
    const expected = turn(resizeGrid(table, { from, to, antialias }), to);
    turned.forEach((v, i) => assert.ok(Math.abs(v - expected[i]) < 1e-6));
  }
});

// By hand: to the middle of four values the plain filter gives -3/32, 19/32, 19/32, -3/32, the smooth one of twice the
// width uses all of them by their distance.
Deno.test("resizeGrid() weighs neighbours as its filter says", () => {
  const from = { rows: 1, columns: 4 }, to = { rows: 1, columns: 1 };
  const value = (at: number, antialias: boolean) => {
    const table = new Float32Array(4);
    table[at] = 1;
    return resizeGrid(table, { from, to, antialias })[0];
  };
  [-3 / 32, 19 / 32, 19 / 32, -3 / 32].forEach((weight, at) =>
    assert.ok(Math.abs(value(at, false) - weight) < 1e-6, `${at}`)
  );
  const raw = [3 / 8, 1 / 8].map((d) => 1.5 * d ** 3 - 2.5 * d ** 2 + 1), sum = 2 * (raw[0] + raw[1]);
  [raw[0], raw[1], raw[1], raw[0]].forEach((weight, at) =>
    assert.ok(Math.abs(value(at, true) - weight / sum) < 1e-6, `${at}`)
  );
});
