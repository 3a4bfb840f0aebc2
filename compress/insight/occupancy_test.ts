import assert from "node:assert/strict";
import fc from "fast-check";
import { packWindows } from "../../kernels/packers.ts";
import { assignWindows } from "../../kernels/window_matching.ts";
import { FILL_BINS } from "../../models/formats/insight_file.ts";
import { windowOccupancy } from "./occupancy.ts";

const format = (windows: number, blockChunks: number, bits: 4 | 8 = 8) =>
  ({ kind: "windows", windows, bits, blockChunks }) as const;

Deno.test("windowOccupancy() of a row packed by hand", () => {
  // One chunk, 5 slots: windows 0..3 of view A (columns 0-15, 16-31, ...) hold 4 each, window 0 of view B 4 more.
  const S = new Float32Array(64);
  for (const column of [0, 1, 2, 3, 4, 16, 17]) S[column] = column + 1; // 4 is in view A's full window, and in view B's 0
  const occupancy = windowOccupancy(format(5, 1), packWindows(S, [1, 64], format(5, 1)), [1, 64]);
  const blocks = new Array(FILL_BINS).fill(0);
  blocks[7] = 1; // 7 of 20 places
  assert.deepEqual(occupancy, {
    places: 20,
    filled: 7,
    kinds: [
      { view: "A", capacity: 4, windows: [2, 0, 1, 0, 1] },
      { view: "B", capacity: 4, windows: [0, 1, 0, 0, 0] },
    ],
    blocks,
  });
});

Deno.test("windowOccupancy() counts every window and every kept value once", () => {
  const cases = fc.record({
    windows: fc.integer({ min: 1, max: 15 }),
    blockChunks: fc.integer({ min: 1, max: 4 }),
    dOut: fc.integer({ min: 1, max: 9 }),
    chunks: fc.integer({ min: 1, max: 6 }),
    bits: fc.constantFrom<4 | 8>(4, 8),
    density: fc.double({ min: 0, max: 1, noNaN: true }),
    seed: fc.integer(),
  });
  fc.assert(
    fc.property(cases, ({ windows, blockChunks, dOut, chunks, bits, density, seed }) => {
      const shape = [dOut, 64 * chunks] as const;
      let state = seed >>> 0;
      const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
      const scores = Float32Array.from(
        { length: dOut * 64 * chunks },
        () => next() < density ? 1 + next() : 0,
      );
      const mask = assignWindows(scores, shape, { windows, blockChunks });
      const S = scores.map((_, i) => mask[i]); // ±1 survive every quantisation
      const packed = packWindows(S, shape, format(windows, blockChunks, bits));
      const { places, filled, kinds, blocks } = windowOccupancy(
        format(windows, blockChunks, bits),
        packed,
        shape,
      );
      const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
      assert.equal(places, dOut * chunks * windows * 4);
      assert.equal(filled, sum([...mask]));
      assert.equal(sum(kinds.map((k) => k.capacity * sum(k.windows))), places);
      assert.equal(sum(kinds.map((k) => sum(k.windows.map((count, i) => count * i)))), filled);
      assert.equal(sum(blocks), dOut * Math.ceil(chunks / blockChunks));
    }),
    { numRuns: 60 },
  );
});

Deno.test("windowOccupancy() leaves out windows beyond the last column", () => {
  const S = new Float32Array(80).fill(0);
  S[64] = 1; // the second chunk has columns 64..79: one window of view A
  const occupancy = windowOccupancy(format(4, 1), packWindows(S, [1, 80], format(4, 1)), [1, 80]);
  assert.equal(occupancy.places, 16 + 4);
  assert.equal(occupancy.filled, 1);
});
