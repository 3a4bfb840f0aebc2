import assert from "node:assert/strict";
import fc from "fast-check";
import {
  columnParts,
  finestSlots,
  groupCount,
  MAX_HALF_WINDOWS,
  packedBytes,
  Q4_MIN,
  Q8_MAX,
  type Shape2,
  type WeightFormat,
  WINDOW,
  type WindowCount,
  windowSlots,
} from "./layout.ts";
import { assignWindows, packF32, packQ4, packQ8, packWindows, slotsNeeded, unpack } from "./packers.ts";
import { fromPanels, groupSteps, toPanels } from "./panels.ts";
import { blocksOf } from "./window_matching.ts";

/** A bf16 scale is off by up to 2^-9 of itself, which the largest code multiplies. */
const BF16_SLACK = 1 + 2 ** -8;

const shapes = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 }));
const counts: fc.Arbitrary<WindowCount> = fc.oneof(
  fc.record({ windows: fc.integer({ min: 1, max: 15 }) }),
  fc.record({ windows: fc.integer({ min: 1, max: MAX_HALF_WINDOWS }), halves: fc.constant(true as const) }),
);
const formats = fc.tuple(
  counts,
  fc.record({ bits: fc.constantFrom<4 | 8>(4, 8), blockChunks: fc.integer({ min: 1, max: 4 }) }),
).map(([count, rest]) => ({ ...count, ...rest }));
/** Weights of one layer: normal sizes, or all tiny, huge or denormal, with zeros in between. */
const layers = fc.tuple(shapes, fc.integer(), fc.constantFrom(1, 1e-3, 1e-25, 1e30, 1e-42)).map(
  ([shape, seed, magnitude]) => ({
    shape,
    W: numbers(shape[0] * shape[1], seed).map((v) => v * magnitude).map((v) => v + 0),
  }),
);

/** Reproducible values in -1..1, an eighth of them 0. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed | 1;
  return Float32Array.from({ length: count }, () => {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    return state & 0x70000 ? state / 2 ** 31 : 0;
  });
}

const masked = (W: Float32Array, mask: Uint8Array): Float32Array => W.map((w, i) => mask[i] ? w : 0);

/** Largest magnitude of each run of columns that shares a scale, per weight. */
function runMaxima(W: Float32Array, [dOut, dIn]: Shape2, blockChunks: number): Float32Array {
  const out = new Float32Array(W.length);
  for (let row = 0; row < dOut; row++) {
    for (const { from, columns } of blocksOf(dIn, blockChunks)) {
      const at = row * dIn + from;
      out.fill(Math.max(...W.subarray(at, at + columns).map(Math.abs)), at, at + columns);
    }
  }
  return out;
}

/** Each weight is off by half a step of its scale, or by what the tried clipping (0.76 for 4 bits) takes off. */
function assertQuantised(
  W: Float32Array,
  shape: Shape2,
  actual: Float32Array,
  bits: 4 | 8,
  blockChunks: number,
): void {
  const maxima = runMaxima(W, shape, blockChunks);
  const worst = bits === 8 ? 0 : 0.34;
  let [errors, squares] = [0, 0];
  W.forEach((w, i) => {
    const steps = bits === 8 ? Q8_MAX : -Q4_MIN;
    const error = Math.abs(w - actual[i]);
    const floor = 1e-40; // below the smallest bf16 steps
    assert.ok(
      error <= Math.max(worst, 0.5 / steps) * BF16_SLACK * maxima[i] + floor * steps,
      `[${i}] ${w} became ${actual[i]}`,
    );
    errors += error ** 2;
    squares += maxima[i] ** 2;
  });
  // Rounding alone: a step's uniform error is step^2 / 12; the search for scales never does worse than absmax.
  const step = (bits === 8 ? 1 / Q8_MAX : 1 / -Q4_MIN) * BF16_SLACK;
  if (squares > 1e-60) {
    assert.ok(errors <= step ** 2 / 4 * squares * BF16_SLACK, `mean squared error ${errors / squares}`);
  }
}

Deno.test("packF32() and unpack() return the same weights", () => {
  fc.assert(fc.property(layers, ({ shape, W }) => {
    assert.deepEqual(unpack({ kind: "f32" }, packF32(W, shape), shape), W);
  }));
});

for (const [bits, pack] of [[8, packQ8], [4, packQ4]] as const) {
  Deno.test(`packQ${bits}() keeps every weight within its error bound`, () => {
    fc.assert(fc.property(layers, ({ shape, W }) => {
      const format: WeightFormat = { kind: bits === 8 ? "q8" : "q4" };
      const bytes = pack(W, shape);
      assert.equal(bytes.length, packedBytes(format, shape));
      assertQuantised(W, shape, unpack(format, bytes, shape), bits, 1);
    }));
  });
}

Deno.test("toPanels() alternates the steps of two groups, fromPanels() undoes it", () => {
  fc.assert(
    fc.property(layers, formats, fc.constantFrom("f32", "q8", "q4", "windows"), (layer, windows, kind) => {
      const format = kind === "windows" ? { kind, ...windows } as const : { kind } as WeightFormat;
      const shape = layer.shape, size = packedBytes(format, shape);
      const groups = Uint8Array.from({ length: size }, (_, i) => i * 31 >> 3);
      const panels = toPanels(format, shape, groups, new Uint8Array(size));
      assert.deepEqual(fromPanels(format, shape, panels), groups);
      const steps = groupSteps(format, shape[1]);
      const bytes = steps.reduce((a, b) => a + b, 0);
      assert.equal(bytes * groupCount(shape[0]), size);
      if (groupCount(shape[0]) > 1) {
        assert.deepEqual(panels.subarray(0, steps[0]), groups.subarray(0, steps[0]));
        assert.deepEqual(panels.subarray(steps[0], 2 * steps[0]), groups.subarray(bytes, bytes + steps[0]));
      }
    }),
  );
  assert.throws(() => fromPanels({ kind: "q8" }, [4, 64], new Uint8Array(3)), RangeError);
});

Deno.test("columnParts() cuts long rows at whole blocks into even parts, and nothing else", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30000 }),
      formats,
      fc.constantFrom("f32", "q8", "windows"),
      (dIn, windows, kind) => {
        const format = kind === "windows" ? { kind, ...windows } as const : { kind } as WeightFormat;
        const parts = columnParts(format, dIn);
        assert.equal(parts.reduce((sum, { cols }) => sum + cols, 0), dIn);
        if (kind === "f32" || dIn <= 2048) return assert.deepEqual(parts, [{ chunk: 0, cols: dIn }]);
        const bytes = parts.reduce((sum, { cols }) => sum + packedBytes(format, [8, cols]), 0);
        assert.equal(bytes, packedBytes(format, [8, dIn]));
        let chunk = 0;
        const widths = parts.map(({ chunk: begin, cols }) => {
          assert.equal(begin, chunk);
          if (kind === "windows") assert.equal(begin % windows.blockChunks, 0);
          chunk += Math.ceil(cols / 64);
          return Math.ceil(cols / 64);
        });
        assert.ok(Math.max(...widths) <= 32);
        assert.ok(Math.max(...widths) - Math.min(...widths) < 2 * windows.blockChunks);
      },
    ),
  );
});

Deno.test("toPanels() stores the parts of long rows one after the other", () => {
  const shape: Shape2 = [11, 4500], format = { kind: "q8" } as const;
  const W = numbers(shape[0] * shape[1], 7);
  const packed = packQ8(W, shape);
  let at = 0;
  for (const { chunk, cols } of columnParts(format, shape[1])) {
    const part: Shape2 = [shape[0], cols], size = packedBytes(format, part);
    const from = 64 * chunk;
    const columns = Float32Array.from(
      { length: shape[0] * cols },
      (_, i) => W[Math.floor(i / cols) * shape[1] + from + i % cols],
    );
    assert.deepEqual(packed.subarray(at, at + size), packQ8(columns, part));
    at += size;
  }
  assert.equal(at, packed.length);
  assert.deepEqual(unpack(format, packed, shape).length, W.length);
});

Deno.test("packedBytes() of dense layers counts the vectors that columns take, not whole chunks", () => {
  const sizes = (kind: "q8" | "q4") =>
    [1, 4, 5, 36, 64, 65, 72, 128].map((d) => packedBytes({ kind }, [4, d]));
  assert.deepEqual(sizes("q8"), [32, 32, 48, 160, 272, 304, 320, 544]);
  assert.deepEqual(sizes("q4"), [32, 32, 32, 96, 144, 176, 176, 288]);
});

Deno.test("packQ4() stores code 0 in every place outside the shape", () => {
  const bytes = fromPanels({ kind: "q4" }, [5, 69], packQ4(new Float32Array(5 * 69).fill(1), [5, 69]));
  const group = packedBytes({ kind: "q4" }, [4, 69]);
  assert.equal(bytes.length, 2 * group);
  const [chunk, header] = [144, 16];
  const second = bytes.subarray(group);
  // Rows 5 to 7: headers and codes. Of the last vector's 8 columns 5 belong to the layer.
  for (let row = 1; row < 4; row++) {
    for (const at of [0, chunk]) {
      assert.deepEqual([...second.subarray(at + 2 * row, at + 2 * row + 2)], [0, 0]);
      assert.deepEqual([...second.subarray(at + 8 + 2 * row, at + 10 + 2 * row)], [0, 0]);
    }
    for (let v = header; v < group - header; v += v + 16 === chunk ? 32 : 16) {
      assert.deepEqual([...second.subarray(v + 4 * row, v + 4 * row + 4)], [0x88, 0x88, 0x88, 0x88]);
    }
  }
  assert.deepEqual([...second.subarray(chunk + header + 1, chunk + header + 4)].map((b) => b >> 4), [
    8,
    8,
    8,
  ]);
});

Deno.test("packQ8() and packQ4() favour important columns", () => {
  const W = Float32Array.from({ length: 64 }, (_, c) => c === 0 ? 1 : 0.1 + 0.001 * c);
  const error = (columnImportance?: Float32Array) => {
    const actual = unpack({ kind: "q4" }, packQ4(W, [1, 64], { columnImportance }), [1, 64]);
    return W.reduce((sum, w, c) => sum + (c === 0 ? 0 : (w - actual[c]) ** 2), 0);
  };
  const small = Float32Array.from({ length: 64 }, (_, c) => c === 0 ? 0 : 1);
  assert.ok(error(small) < error());
});

Deno.test("packers write into a given destination and refuse a wrong one", () => {
  const W = numbers(4 * 70, 3);
  const buffer = new Uint8Array(272 + 48 + 8).fill(7);
  const bytes = packQ8(W, [4, 70], { destination: buffer.subarray(4, 4 + 272 + 48) });
  assert.deepEqual(bytes, packQ8(W, [4, 70]));
  assert.deepEqual([...buffer.subarray(0, 4), ...buffer.subarray(-4)], Array(8).fill(7));
  assert.throws(() => packQ8(W, [4, 70], { destination: buffer }), RangeError);
  assert.throws(() => packQ8(W, [4, 71]), RangeError);
  assert.throws(() => unpack({ kind: "q8" }, buffer, [4, 70]), RangeError);
});

Deno.test("assignWindows() keeps masks that packWindows() places, within capacity, never zeros", () => {
  fc.assert(fc.property(layers, formats, ({ shape, W }, format) => {
    const mask = assignWindows(W.map(Math.abs), shape, format);
    const S = masked(W, mask);
    mask.forEach((kept, i) => assert.ok(!kept || W[i] !== 0));
    assert.ok(slotsNeeded(mask, shape, format.blockChunks).windows <= format.windows);
    for (let row = 0; row < shape[0]; row++) {
      for (const { from, columns, chunks } of blocksOf(shape[1], format.blockChunks)) {
        const at = row * shape[1] + from;
        const kept = mask.subarray(at, at + columns).reduce((a, b) => a + b, 0);
        assert.ok(kept <= 4 * format.windows * chunks);
      }
    }
    const bytes = packWindows(S, shape, format);
    const packed: WeightFormat = { kind: "windows", ...format };
    assert.equal(bytes.length, packedBytes(packed, shape));
    const actual = unpack(packed, bytes, shape);
    actual.forEach((v, i) => assert.ok(mask[i] || v === 0, "a dropped entry came back"));
    assertQuantised(S, shape, actual, format.bits, format.blockChunks);
  }));
});

/** Most score a row's block can keep, by trying all subsets of its few non-zero columns. */
function bruteForce(scores: Float32Array, count: WindowCount, chunks: number): number {
  const width = 4 * chunks;
  const capacity = new Int32Array(2 * width);
  for (const { view, window, entries } of windowSlots(count)) {
    for (let q = 0; q < chunks; q++) capacity[(view === "B" ? width : 0) + window + 4 * q] += entries;
  }
  const columns = [...scores.keys()].filter((c) => scores[c] > 0);
  const best = (i: number): number => {
    if (i === columns.length) return 0;
    let most = best(i + 1);
    for (const v of [columns[i] >> 4, width + columns[i] % width]) {
      if (capacity[v] === 0) continue;
      capacity[v]--;
      most = Math.max(most, scores[columns[i]] + best(i + 1));
      capacity[v]++;
    }
    return most;
  };
  return best(0);
}

Deno.test("assignWindows() is optimal against brute force", () => {
  const columns = fc.uniqueArray(fc.integer({ min: 0, max: 63 }), { maxLength: 9 });
  // Columns of window A 0 and B 0 meet often, so that augmenting paths are needed.
  const crowded = fc.subarray([0, 1, 2, 3, 4, 8, 12, 5, 6, 16, 20], { maxLength: 10 });
  fc.assert(
    fc.property(
      fc.oneof(columns, crowded),
      fc.record({
        windows: fc.integer({ min: 1, max: 6 }),
        halves: fc.constantFrom(undefined, true as const),
      }),
      fc.integer(),
      (kept, count, seed) => {
        const scores = new Float32Array(64);
        const values = numbers(kept.length, seed);
        kept.forEach((c, i) => scores[c] = 1 + Math.round(8 * Math.abs(values[i])));
        const mask = assignWindows(scores, [1, 64], { ...count, blockChunks: 1 });
        const total = scores.reduce((sum, score, c) => sum + (mask[c] ? score : 0), 0);
        assert.equal(total, bruteForce(scores, count, 1));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("assignWindows() loses next to nothing against free choice at half kept, blocks of 128", () => {
  const shape: Shape2 = [64, 512];
  const W = numbers(64 * 512, 5).map((v) => v ** 3);
  const scores = W.map(Math.abs);
  const mask = assignWindows(scores, shape, { windows: 8, blockChunks: 2 });
  const total = (values: Float32Array) => values.reduce((a, b) => a + b, 0);
  const free = scores.slice().sort().subarray(64 * 256);
  assert.ok(total(masked(scores, mask)) > 0.97 * total(free));
});

Deno.test("assignWindows() keeps more with halves than with whole slots, up to six windows", () => {
  const shape: Shape2 = [32, 384];
  const scores = numbers(32 * 384, 9).map((v) => Math.abs(v) ** 3);
  const kept = (count: WindowCount) =>
    masked(scores, assignWindows(scores, shape, { ...count, blockChunks: 3 })).reduce((a, b) => a + b, 0);
  for (let windows = 1; windows <= MAX_HALF_WINDOWS; windows++) {
    assert.deepEqual(finestSlots(windows), { windows, halves: true });
    assert.ok(kept({ windows, halves: true }) > kept({ windows }), `${windows} windows`);
  }
  assert.deepEqual(finestSlots(MAX_HALF_WINDOWS + 1), { windows: MAX_HALF_WINDOWS + 1 });
});

Deno.test("slotsNeeded() are the fewest slots packWindows() takes, 16 for a dense row", () => {
  fc.assert(
    fc.property(
      shapes,
      fc.integer(),
      fc.integer({ min: 1, max: 3 }),
      fc.double({ min: 0, max: 1 }),
      (shape, seed, blockChunks, share) => {
        const S = numbers(shape[0] * shape[1], seed).map((v) => Math.abs(v) < share ? v : 0);
        const needed = slotsNeeded(S, shape, blockChunks);
        const fits = (slots: WindowCount) => {
          try {
            return packWindows(S, shape, { ...slots, bits: 4, blockChunks }).length > 0;
          } catch (error) {
            assert.ok(error instanceof RangeError);
            return false;
          }
        };
        assert.ok(needed.windows === WINDOW || fits(needed));
        for (let windows = 1; windows < needed.windows; windows++) {
          assert.ok(!fits({ windows }) && !fits(finestSlots(windows)));
        }
      },
    ),
  );
  assert.deepEqual(slotsNeeded(new Float32Array(64).fill(1), [1, 64], 1), { windows: WINDOW });
  assert.deepEqual(slotsNeeded(new Float32Array(64), [1, 64], 1), { windows: 1 });
  const first4Of16 = Float32Array.from({ length: 128 }, (_, c) => +(c % 16 < 4));
  assert.deepEqual(slotsNeeded(first4Of16, [1, 128], 2), { windows: 4 });
  const first2Of16 = first4Of16.map((_, c) => +(c % 16 < 2));
  assert.deepEqual(slotsNeeded(first2Of16, [1, 128], 2), { windows: 2, halves: true });
});

Deno.test("packWindows() refuses entries that do not fit and blocks whose code sums would overflow", () => {
  const dense = new Float32Array(64).fill(1);
  assert.throws(() => packWindows(dense, [1, 64], { windows: 15, bits: 8, blockChunks: 1 }), RangeError);
  assert.throws(() => packWindows(dense, [1, 64], { windows: 15, bits: 8, blockChunks: 16 }), RangeError);
  assert.throws(() => packWindows(dense, [1, 64], { windows: 16, bits: 8, blockChunks: 1 }), RangeError);
  assert.throws(() => assignWindows(dense, [1, 64], { windows: 4, blockChunks: 0 }), RangeError);
  assert.throws(
    () => assignWindows(dense, [1, 64], { windows: 7, halves: true, blockChunks: 1 }),
    RangeError,
  );
});
