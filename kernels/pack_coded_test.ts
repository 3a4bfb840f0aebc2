import assert from "node:assert/strict";
import fc from "fast-check";
import {
  assignWindows,
  type CodedMatrix,
  decode,
  packCoded,
  roundScale,
  runCount,
  unpack,
} from "./packers.ts";
import { MAX_HALF_WINDOWS, Q4_MAX, Q4_MIN, Q8_MAX, type WeightFormat } from "./layout.ts";
import { runColumnsOf } from "./pack_coded.ts";

type CodedFormat = Exclude<WeightFormat, { kind: "f32" }>;

const formats = fc.oneof(
  fc.constantFrom<CodedFormat>({ kind: "q8" }, { kind: "q4" }),
  fc.record({
    kind: fc.constant("windows" as const),
    windows: fc.integer({ min: 1, max: 15 }),
    bits: fc.constantFrom<4 | 8>(4, 8),
    blockChunks: fc.integer({ min: 1, max: 4 }),
  }),
  fc.record({
    kind: fc.constant("windows" as const),
    windows: fc.integer({ min: 1, max: MAX_HALF_WINDOWS }),
    bits: fc.constantFrom<4 | 8>(4, 8),
    blockChunks: fc.integer({ min: 1, max: 4 }),
    halves: fc.constant(true as const),
  }),
);

/** Reproducible values in 0..1. */
function numbers(seed: number): () => number {
  let state = seed | 1;
  return () => (state = Math.imul(state, 1664525) + 1013904223 | 0) / 2 ** 32 + 0.5;
}

/** Random codes (where the windows have room) and scales of either sign. */
function coded(format: CodedFormat, [rows, cols]: readonly [number, number], seed: number): CodedMatrix {
  const random = numbers(seed), runColumns = runColumnsOf(format);
  const wide = format.kind === "q8" || (format.kind === "windows" && format.bits === 8);
  const [min, max] = wide ? [-Q8_MAX, Q8_MAX] : [Q4_MIN, Q4_MAX];
  const codes = Int8Array.from(
    { length: rows * cols },
    () => min + Math.floor(random() * (max - min + 1)) + 0,
  );
  if (format.kind === "windows") {
    const mask = assignWindows(Float32Array.from(codes, () => random()), [rows, cols], format);
    mask.forEach((kept, at) => kept || (codes[at] = 0));
  }
  const scales = Float32Array.from(
    { length: rows * runCount(cols, runColumns) },
    () => roundScale((random() - 0.5) * 4),
  );
  return { rows, cols, codes, runColumns, scales };
}

Deno.test("unpack(packCoded()) is code x scale, to the bit, in every format", () => {
  const shapes = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 }));
  fc.assert(
    fc.property(formats, shapes, fc.integer(), (format, shape, seed) => {
      const matrix = coded(format, shape, seed);
      const values = unpack(format, packCoded(format, matrix), shape);
      assert.deepEqual(values.map((v) => v + 0), decode(matrix).map((v) => v + 0)); // + 0: -0 is 0
    }),
    { numRuns: 60 },
  );
});

Deno.test("packCoded() refuses what its format cannot hold", () => {
  const good = coded({ kind: "q4" }, [2, 70], 1);
  const refuses = (change: Partial<CodedMatrix>, message: RegExp) =>
    assert.throws(() => packCoded({ kind: "q4" }, { ...good, ...change }), message);
  refuses({ runColumns: 128 }, /runs of 128 columns/);
  refuses({ codes: good.codes.slice(1) }, /139 codes/);
  refuses({ codes: good.codes.map((_, i) => i === 5 ? 8 : 0) }, /code 8: must lie in -8..7/);
  refuses({ scales: good.scales.map(() => 1.001) }, /exact in bf16/);
  refuses({ scales: good.scales.map(() => NaN) }, /exact in bf16/);
  assert.throws(
    () =>
      packCoded({ kind: "windows", windows: 1, bits: 8, blockChunks: 1 }, coded({ kind: "q8" }, [1, 64], 2)),
    /do not fit 1 windows/,
  );
});
