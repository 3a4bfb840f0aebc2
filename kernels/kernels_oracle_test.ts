/**
 * The one oracle suite for all kernels: every linear module of the manifest at every batch size against reference.ts
 * on the packed bytes, every base function against double precision.
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { Arena } from "./arena.ts";
import {
  type ActivationEncoding,
  CONSTS_BYTES,
  LOGITS_BLOCK,
  logitsScratchBytes,
  TILE_SIZES,
  type TileSize,
} from "./abi.ts";
import { chunkCount, formatArgument, groupCount, type Shape2, type WeightFormat } from "./layout.ts";
import { bindKernels, ENCODINGS, loadKernelModules, probeEncoding, writeConstants } from "./load.ts";
import { kernelName, LINEAR_MODULES, type LinearModule, weightFormat } from "./manifest.ts";
import { assignWindows, packF32, packQ4, packQ8, packWindows } from "./packers.ts";
import {
  type LinearResult,
  REFERENCE_ACTIVATIONS,
  referenceLayernorm,
  referenceLinear,
  referenceLinearF32,
  referenceLogSumExp,
  referenceQuantize,
  referenceRmsnorm,
  referenceRope,
  referenceSoftCap,
  type Tile,
} from "./reference.ts";

/** Of a linear layer relative to the sum of its terms' magnitudes: the integer part is exact, f32 sums round. */
const LINEAR_TOLERANCE = 2e-6;
/** Of functions in f32: a few roundings of 6e-8 each. */
const F32_TOLERANCE = 1e-6;

const arena = new Arena(64 << 20);
const names = ["base", ...LINEAR_MODULES.map(({ name }) => name)];
const kernels = bindKernels(await loadKernelModules(names), arena.memory);
/** The `i32` variants of the quantised formats. */
const I32 = Object.fromEntries(
  LINEAR_MODULES.map(({ name }) => [name, { decode: "i32", batched: "i32" }]),
);
const otherKernels = bindKernels(await loadKernelModules(names, I32), arena.memory);
const { base } = kernels;
const machine = await probeEncoding();

/** Deterministic numbers, about normal. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = () => {
    state = state + 0x6d2b79f5 >>> 0;
    let t = Math.imul(state ^ state >>> 15, state | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
  return () => uniform() + uniform() + uniform() + uniform() - 2;
}

const normals = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, generator(seed));

function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = "",
): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i] - expected[i]);
    assert.ok(
      error <= tolerance * Math.max(1e-30, Math.abs(expected[i])),
      `${what}[${i}]: is ${actual[i]}, must be ${expected[i]} within ${tolerance} relative`,
    );
  }
}

/** Dense weights and their packed bytes. */
function pack(module: LinearModule, format: WeightFormat, W: Float32Array, shape: Shape2): Uint8Array {
  switch (format.kind) {
    case "f32":
      return packF32(W, shape);
    case "q8":
      return packQ8(W, shape);
    case "q4":
      return packQ4(W, shape);
    case "windows": {
      const mask = assignWindows(W.map(Math.abs), shape, format);
      assert.equal(module.format.kind, "windows");
      return packWindows(W.map((w, i) => mask[i] ? w : 0), shape, format);
    }
  }
}

interface LinearCase {
  readonly what: string;
  readonly shape: Shape2;
  readonly blockChunks: number;
  /** Weight by flat index and a random value. */
  readonly weight?: (random: number, index: number) => number;
  readonly activation?: (random: number, index: number) => number;
  readonly accumulate?: boolean;
}

const LINEAR_CASES: readonly LinearCase[] = [
  { what: "whole tiles", shape: [12, 512], blockChunks: 2 },
  { what: "remainders of rows and columns", shape: [19, 203], blockChunks: 2 },
  { what: "an odd group after panels", shape: [27, 130], blockChunks: 1 },
  { what: "one row", shape: [1, 64], blockChunks: 1 },
  { what: "blocks of one chunk", shape: [4, 192], blockChunks: 1 },
  { what: "a last short block", shape: [5, 320], blockChunks: 4 },
  { what: "an odd block", shape: [4, 448], blockChunks: 3 },
  {
    what: "empty rows and slots",
    shape: [8, 256],
    blockChunks: 2,
    weight: (w, i) => i % 512 < 256 || i % 3 ? 0 : w,
  },
  {
    what: "extreme codes",
    shape: [4, 256],
    blockChunks: 2,
    weight: (_, i) => i >> 8 & 1 ? -1 : 1,
    activation: (_, i) => i >> 8 & 1 ? -5 : 5,
  },
  {
    what: "extreme codes of both signs",
    shape: [4, 256],
    blockChunks: 4,
    weight: (w) => Math.sign(w),
    activation: (x) => Math.sign(x),
  },
  { what: "accumulation", shape: [6, 128], blockChunks: 2, accumulate: true },
];

/** Runs a kernel on packed weights; y `[batch][dOut]`. */
function runLinear(
  module: LinearModule,
  batch: TileSize,
  bytes: Uint8Array,
  shape: Shape2,
  tile: { xa: Float32Array | Uint8Array; xb?: Uint8Array; xs?: Float32Array; encoding: ActivationEncoding },
  { blockChunks, start }: { blockChunks: number; start: Float32Array | null },
): Float32Array {
  arena.reset();
  const [dOut, dIn] = shape;
  const groups = groupCount(dOut);
  const yStride = groups * 4 + 4;
  const consts = arena.allocate(CONSTS_BYTES);
  writeConstants(arena.memory, consts, tile.encoding);
  const [w, xa] = [arena.store(bytes), arena.store(tile.xa)];
  const xb = tile.xb ? arena.store(tile.xb) : 0;
  const xs = tile.xs ? arena.store(tile.xs) : 0;
  const y = arena.allocate(batch * yStride * 4);
  const out = arena.floats(y, batch * yStride).fill(99);
  if (start) {
    for (let t = 0; t < batch; t++) out.fill(start[t], t * yStride, t * yStride + dOut);
  }
  const chunks = module.name === "f32" ? dIn : chunkCount(dIn);
  const accumulate = start ? 1 : 0;
  const bound = module.accumulate === "i32" ? otherKernels : kernels;
  bound.linear(module.name, batch)(
    w,
    xa,
    xb,
    xs,
    y,
    yStride,
    groups,
    chunks,
    formatArgument(weightFormat(module, blockChunks), dIn),
    accumulate,
    consts,
  );
  for (let t = 0; t < batch; t++) {
    assert.ok(
      out.subarray(t * yStride + groups * 4, (t + 1) * yStride).every((v) => v === 99),
      "writes past its rows",
    );
  }
  return Float32Array.from(
    { length: batch * dOut },
    (_, i) => out[Math.floor(i / dOut) * yStride + i % dOut],
  );
}

function assertLinear(
  actual: Float32Array,
  expected: LinearResult,
  start: Float32Array | null,
  what: string,
): void {
  const dOut = actual.length / (start?.length ?? 1);
  for (let i = 0; i < actual.length; i++) {
    const begin = start ? start[Math.floor(i / dOut)] : 0;
    const error = Math.abs(actual[i] - begin - expected.y[i]);
    const allowed = LINEAR_TOLERANCE * (expected.magnitude[i] + Math.abs(begin));
    assert.ok(
      error <= allowed,
      `${what}: y[${i}] is ${actual[i]}, must be ${begin + expected.y[i]} within ${allowed}`,
    );
  }
}

/** Encodings a kernel can be run in here: the machine's own, 7 bits, and signed bytes where both readings agree. */
function tilesOf(
  x: Float32Array,
  shape: Shape2,
  batch: number,
  blockChunks: number,
): { tile: Tile; what: string }[] {
  const options = { cols: shape[1], batch, stride: shape[1], blockChunks, columnScale: null };
  const tile = (values: Float32Array, encoding: ActivationEncoding) =>
    referenceQuantize(values, { ...options, encoding });
  return [
    { what: "machine", tile: tile(x, machine) },
    { what: "7 bits", tile: tile(x, ENCODINGS[64]) },
    { what: "signed, no sign used", tile: tile(x.map(Math.abs), ENCODINGS[0]) },
  ];
}

for (const module of LINEAR_MODULES) {
  for (const batch of TILE_SIZES) {
    Deno.test(`${kernelName(module, batch)} equals its reference`, () => {
      LINEAR_CASES.forEach((linearCase, seed) => {
        const { what, shape, blockChunks, weight, activation, accumulate } = linearCase;
        const W = normals(shape[0] * shape[1], seed + 1).map((w, i) => weight ? weight(w, i) : w);
        const x = normals(batch * shape[1], seed + 100).map((v, i) => activation ? activation(v, i) : v);
        const format = weightFormat(module, blockChunks);
        const bytes = pack(module, format, W, shape);
        const start = accumulate ? normals(batch, seed + 7) : null;
        if (format.kind === "f32") {
          const tile = { xa: x, encoding: machine };
          const actual = runLinear(module, batch, bytes, shape, tile, { blockChunks, start });
          assertLinear(actual, referenceLinearF32(bytes, shape, x, batch), start, what);
          return;
        }
        for (
          const { tile, what: encoding } of tilesOf(
            x,
            shape,
            batch,
            format.kind === "windows" ? blockChunks : 1,
          )
        ) {
          const actual = runLinear(module, batch, bytes, shape, tile, { blockChunks, start });
          assertLinear(actual, referenceLinear(format, bytes, shape, tile), start, `${what}, ${encoding}`);
        }
      });
    });
  }
}

/** Columns that end a dense layer in a chunk of every kind: one vector, whole windows, both, all, a second chunk. */
const LAST_CHUNKS = [1, 3, 4, 5, 18, 36, 52, 63, 64, 65, 72, 100, 130];

for (const module of LINEAR_MODULES.filter(({ name }) => name === "q8" || name === "q4")) {
  Deno.test(`${module.file} equals its reference whatever its last chunk holds`, () => {
    for (const batch of TILE_SIZES) {
      for (const dIn of LAST_CHUNKS) {
        for (const dOut of [3, 4, 13]) {
          for (const accumulate of [false, true]) {
            const shape: Shape2 = [dOut, dIn];
            const format = { kind: module.name as "q8" | "q4" };
            const bytes = pack(module, format, normals(dOut * dIn, dIn), shape);
            const start = accumulate ? normals(batch, dIn + 2) : null;
            for (const { tile, what } of tilesOf(normals(batch * dIn, dIn + 1), shape, batch, 1)) {
              const actual = runLinear(module, batch, bytes, shape, tile, { blockChunks: 1, start });
              const expected = referenceLinear(format, bytes, shape, tile);
              assertLinear(actual, expected, start, `[${shape}], ${what}`);
            }
          }
        }
      }
    }
  });
}

Deno.test("linear kernels equal their reference for any shape", () => {
  const cases = fc.record({
    module: fc.constantFrom(...LINEAR_MODULES),
    batch: fc.constantFrom(...TILE_SIZES),
    dOut: fc.integer({ min: 1, max: 21 }),
    dIn: fc.integer({ min: 1, max: 500 }),
    blockChunks: fc.integer({ min: 1, max: 5 }),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(cases, ({ module, batch, dOut, dIn, blockChunks, seed }) => {
      const shape: Shape2 = [dOut, dIn];
      const format = weightFormat(module, blockChunks);
      const bytes = pack(module, format, normals(dOut * dIn, seed), shape);
      const x = normals(batch * dIn, seed + 1);
      const options = { blockChunks, start: normals(batch, seed + 2) };
      if (format.kind === "f32") {
        const actual = runLinear(module, batch, bytes, shape, { xa: x, encoding: machine }, options);
        assertLinear(actual, referenceLinearF32(bytes, shape, x, batch), options.start, module.file);
        return;
      }
      const [{ tile }] = tilesOf(x, shape, batch, blockChunks);
      const actual = runLinear(module, batch, bytes, shape, tile, options);
      assertLinear(actual, referenceLinear(format, bytes, shape, tile), options.start, module.file);
    }),
    { numRuns: 300 },
  );
});

Deno.test("quantize leaves view B out when its address is 0", () => {
  arena.reset();
  const consts = arena.allocate(CONSTS_BYTES);
  writeConstants(arena.memory, consts, machine);
  const [xa, xs] = [arena.allocate(128), arena.allocate(8)];
  const guard = arena.bytes(0, 64).slice();
  base.quantize[1](arena.store(normals(128, 1)), 128, 128, 2, 2, 0, xa, 0, xs, consts);
  assert.deepEqual(arena.bytes(0, 64).slice(), guard);
});

Deno.test("referenceLinear() gives the same result in all encodings of the same codes", () => {
  const shape: Shape2 = [5, 200];
  const format: WeightFormat = { kind: "windows", windows: 7, bits: 8, blockChunks: 2 };
  const W = normals(1000, 3);
  const mask = assignWindows(W.map(Math.abs), shape, format);
  const bytes = packWindows(W.map((w, i) => mask[i] ? w : 0), shape, format);
  const options = { cols: 200, batch: 1, stride: 200, blockChunks: 2, columnScale: null };
  const results = ([128, 0, 64] as const).map((offset) =>
    referenceLinear(
      format,
      bytes,
      shape,
      referenceQuantize(normals(200, 4), { ...options, encoding: { offset, maxCode: 63 } }),
    )
  );
  assert.deepEqual(results[0].y, results[1].y);
  assert.deepEqual(results[0].y, results[2].y);
});

for (const batch of TILE_SIZES) {
  Deno.test(`quantize_b${batch} writes exactly the tile of its reference`, () => {
    for (
      const [cols, blockChunks] of [[64, 1], [128, 2], [576, 2], [203, 2], [1, 1], [320, 4], [512, 4], [
        448,
        3,
      ]]
    ) {
      for (const encoding of Object.values(ENCODINGS)) {
        for (const scaled of [false, true]) {
          arena.reset();
          const stride = cols + 5;
          const x = normals(batch * stride, cols);
          if (cols >= 128) x.fill(0, 0, 128); // a block of zeros
          x[cols - 1] = 1e-32;
          const columnScale = scaled ? normals(cols, 5) : null;
          const expected = referenceQuantize(x, { cols, batch, stride, blockChunks, columnScale, encoding });
          const consts = arena.allocate(CONSTS_BYTES);
          writeConstants(arena.memory, consts, encoding);
          const chunks = chunkCount(cols);
          const [xa, xb] = [arena.allocate(expected.xa.length), arena.allocate(expected.xb.length)];
          const xs = arena.allocate(expected.xs.byteLength);
          const scale = columnScale ? arena.store(columnScale) : 0;
          base.quantize[batch](arena.store(x), stride, cols, chunks, blockChunks, scale, xa, xb, xs, consts);
          const what = `cols ${cols}, blocks of ${blockChunks}, offset ${encoding.offset}`;
          assert.deepEqual(arena.floats(xs, expected.xs.length).slice(), expected.xs, what);
          assert.deepEqual(arena.bytes(xa, expected.xa.length).slice(), expected.xa, what);
          assert.deepEqual(arena.bytes(xb, expected.xb.length).slice(), expected.xb, what);
        }
      }
    }
  });

  Deno.test(`interleave_b${batch} transposes its rows`, () => {
    arena.reset();
    const [cols, stride] = [37, 40];
    const x = normals(batch * stride, 9);
    const columnScale = normals(cols, 10);
    const out = arena.allocate(cols * batch * 4);
    base.interleave[batch](arena.store(x), stride, cols, arena.store(columnScale), out);
    const expected = Float32Array.from(
      { length: cols * batch },
      (_, i) => x[i % batch * stride + Math.floor(i / batch)] * columnScale[Math.floor(i / batch)],
    );
    assert.deepEqual(arena.floats(out, cols * batch).slice(), expected);
  });
}

/** Columns around the vector widths. */
const WIDTHS = [1, 3, 4, 10, 64, 203];

Deno.test("rmsnorm equals its reference", () => {
  for (const cols of WIDTHS) {
    arena.reset();
    const [rows, stride] = [3, cols + 3];
    const [x, weight] = [normals(rows * stride, cols), normals(cols, 2)];
    const out = arena.allocate(rows * cols * 4);
    base.rmsnorm(arena.store(x), stride, arena.store(weight), out, cols, cols, rows, 1e-5);
    for (let r = 0; r < rows; r++) {
      const expected = referenceRmsnorm(x.subarray(r * stride, r * stride + cols), weight, 1e-5);
      assertClose(arena.floats(out + r * cols * 4, cols), expected, F32_TOLERANCE);
    }
  }
});

Deno.test("layernorm equals its reference, with and without bias, far from zero too", () => {
  for (const cols of WIDTHS) {
    for (const withBias of [false, true]) {
      arena.reset();
      const [rows, stride] = [2, cols + 1];
      const x = normals(rows * stride, cols).map((v) => v + 3);
      const [weight, bias] = [normals(cols, 2), normals(cols, 3)];
      const out = arena.allocate(rows * cols * 4);
      const biasAt = withBias ? arena.store(bias) : 0;
      base.layernorm(arena.store(x), stride, arena.store(weight), biasAt, out, cols, cols, rows, 1e-5);
      for (let r = 0; r < rows; r++) {
        const row = x.subarray(r * stride, r * stride + cols);
        const expected = referenceLayernorm(row, weight, withBias ? bias : null, 1e-5);
        // Absolute: differences from a mean of 3 carry its rounding, 3 x 6e-8, times 1 / deviation.
        arena.floats(out + r * cols * 4, cols).forEach((v, i) => assert.ok(Math.abs(v - expected[i]) < 5e-6));
      }
    }
  }
});

Deno.test("rope equals its reference, for parts of a head and odd sizes", () => {
  for (const [headDim, dims] of [[64, 64], [10, 10], [16, 6], [80, 32]]) {
    arena.reset();
    const [rows, heads, half] = [3, 2, dims / 2];
    const stride = heads * headDim + 4;
    const x = normals(rows * stride, dims);
    const angles = normals(8 * half, 2);
    const [cos, sin] = [angles.map(Math.cos), angles.map(Math.sin)];
    const positions = Int32Array.of(0, 7, 3);
    const at = arena.store(x);
    const tables = [arena.store(positions), arena.store(cos), arena.store(sin)] as const;
    base.rope(at, stride, rows, heads, headDim, dims, ...tables);
    for (let r = 0; r < rows; r++) {
      const from = positions[r] * half;
      for (let h = 0; h < heads; h++) {
        const o = r * stride + h * headDim;
        const expected = referenceRope(
          x.subarray(o, o + headDim),
          dims,
          cos.subarray(from, from + half),
          sin.subarray(from, from + half),
        );
        arena.floats(at + o * 4, headDim).forEach((v, i) => assert.ok(Math.abs(v - expected[i]) < 5e-7));
      }
    }
  }
});

Deno.test("activate equals its reference from -60 to 60, with and without gate", () => {
  const cols = 4803;
  const gate = Float32Array.from({ length: 2 * cols }, (_, i) => (i % cols - 2401) / 40);
  const up = normals(2 * cols, 4);
  REFERENCE_ACTIVATIONS.forEach((activation, kind) => {
    for (const gated of [true, false]) {
      arena.reset();
      const out = arena.allocate(2 * cols * 4);
      const upAt = arena.store(gated ? up : gate);
      base.activate(kind, gated ? arena.store(gate) : 0, cols, upAt, cols, out, cols, cols, 2);
      arena.floats(out, 2 * cols).forEach((v, i) => {
        const expected = activation(gate[i]) * (gated ? up[i] : 1);
        // Exponentials of arguments rounded in f32: up to |argument| x 6e-8 relative; f32 cannot hold below 1e-36.
        const tolerance = F32_TOLERANCE * (1 + Math.abs(gate[i]) ** (kind === 0 ? 1 : 3) / 8);
        const error = Math.abs(v - expected);
        assert.ok(
          error <= Math.max(1e-34, tolerance * Math.abs(expected)),
          `kind ${kind} at ${gate[i]}: ${v}, must be ${expected}`,
        );
      });
    }
  });
});

Deno.test("activate passes NaN on", () => {
  arena.reset();
  const out = arena.allocate(16);
  for (const kind of REFERENCE_ACTIVATIONS.keys()) {
    base.activate(kind, 0, 0, arena.store(Float32Array.of(NaN, 1, NaN)), 3, out, 3, 3, 1);
    assert.deepEqual([...arena.floats(out, 3)].map(Number.isNaN), [true, false, true]);
  }
});

Deno.test("add_vector adds, or sets", () => {
  for (const cols of WIDTHS) {
    arena.reset();
    const [x, y] = [normals(2 * cols, 1), normals(2 * cols, 2)];
    const rows = arena.store(x);
    base.add_vector(rows, cols, arena.store(y), cols, 2, 0);
    assert.deepEqual(arena.floats(rows, 2 * cols).slice(), x.map((v, i) => v + y[i % cols]));
    base.add_vector(rows, cols, arena.store(y), cols, 2, 1);
    assert.deepEqual(arena.floats(rows, 2 * cols).slice(), x.map((_, i) => y[i % cols]));
  }
});

Deno.test("add_scaled adds a multiple", () => {
  for (const cols of WIDTHS) {
    arena.reset();
    const [x, y] = [normals(cols, 1), normals(cols, 2)], factor = Math.fround(0.3);
    const row = arena.store(x);
    base.add_scaled(row, arena.store(y), factor, cols);
    assert.deepEqual(arena.floats(row, cols).slice(), x.map((v, i) => v + Math.fround(y[i] * factor)));
  }
});

Deno.test("soft_cap equals its reference, also far beyond the cap, and passes NaN on", () => {
  for (const [cols, cap] of [[1, 30], [203, 0.5], [4096, 12]]) {
    arena.reset();
    const x = normals(2 * (cols + 1), cols).map((v, i) => v * [0.001, 1, 50, 1e6][i % 4]),
      at = arena.store(x);
    base.soft_cap(at, cols + 1, cols, 2, cap);
    for (const r of [0, 1]) {
      arena.floats(at + r * (cols + 1) * 4, cols).forEach((v, c) => {
        const expected = referenceSoftCap(x[r * (cols + 1) + c], cap);
        assert.ok(Math.abs(v - expected) <= 3e-7 * cap, `${x[c]}: ${v}, must be ${expected}`);
      });
    }
  }
  const at = arena.store(Float32Array.of(NaN, -Infinity));
  base.soft_cap(at, 2, 2, 1, 5);
  assert.deepEqual([...arena.floats(at, 2)], [NaN, -5]);
});

Deno.test("embed_f32 and embed_q8 read rows of packed tables", () => {
  // Of 11 rows the last group stands alone, of 15 it shares a panel.
  for (const [rows, cols] of [11, 15].flatMap((rows) => [64, 203, 6, 1, 36, 72, 128].map((c) => [rows, c]))) {
    arena.reset();
    const shape: Shape2 = [rows, cols];
    const W = normals(rows * cols, cols);
    const ids = Int32Array.of(6, 0, rows - 1, 6);
    const stride = cols + 1, groups = groupCount(rows);
    for (
      const [bytes, embed, tolerance] of [
        [packF32(W, shape), base.embed_f32, 0],
        [packQ8(W, shape), base.embed_q8, 2 / 63],
      ] as const
    ) {
      const out = arena.allocate(4 * stride * 4);
      const table = arena.store(bytes), idsAt = arena.store(ids);
      const check = (factor: number) =>
        ids.forEach((id, r) =>
          arena.floats(out + r * stride * 4, cols).forEach((v, c) =>
            assert.ok(Math.abs(v - factor * W[id * cols + c]) <= factor * tolerance, `row ${id} column ${c}`)
          )
        );
      embed(table, groups, idsAt, 4, cols, out, stride, 1, 0);
      check(1);
      embed(table, groups, idsAt, 4, cols, out, stride, 2, 0);
      check(2);
      embed(table, groups, idsAt, 4, cols, out, stride, 2, 1);
      check(4);
    }
  }
});

Deno.test("argmax and max find the maximum, ties to the lowest index, never NaN", () => {
  for (const n of [1, 2, 5, 16, 17, 1003]) {
    for (let seed = 0; seed < 20; seed++) {
      arena.reset();
      const x = normals(n, seed).map((v) => Math.round(v * 8));
      if (seed % 2 && n > 1) x[seed % n] = NaN;
      const top = Math.max(...[...x].filter((v) => !Number.isNaN(v)));
      const at = arena.store(x);
      assert.equal(base.max(at, n), top);
      assert.equal(base.argmax(at, n), x.indexOf(top));
    }
  }
  arena.reset();
  assert.equal(base.argmax(arena.store(new Float32Array(9).fill(NaN)), 9), 0);
  assert.equal(base.argmax(arena.store(new Float32Array(9).fill(-Infinity)), 9), 0);
});

Deno.test("log_sum_exp equals its reference and is stable", () => {
  for (const n of [1, 3, 64, 1003, 49152]) {
    for (const [scale, shift, inverse] of [[1, 0, 1], [20, 500, 0.7], [0.01, -900, 2]]) {
      arena.reset();
      const x = normals(n, n).map((v) => v * scale + shift);
      const expected = referenceLogSumExp(x, inverse);
      const actual = base.log_sum_exp(arena.store(x), n, inverse);
      assert.ok(
        Math.abs(actual - expected) <= 1e-6 * Math.max(1, Math.abs(expected)),
        `${n}: ${actual}, must be ${expected}`,
      );
    }
  }
});

Deno.test("select_at_least lists indices in order, counts all, writes at most the limit", () => {
  for (const n of [1, 7, 64, 203]) {
    arena.reset();
    const x = normals(n, n);
    x[0] = 0.25;
    const expected = [...x.keys()].filter((i) => x[i] >= 0.25);
    const out = arena.allocate(4 * (n + 1));
    const at = arena.store(x);
    assert.equal(base.select_at_least(at, n, 0.25, out, n), expected.length);
    assert.deepEqual([...arena.ints(out, expected.length)], expected);
    arena.ints(out, n).fill(-1);
    assert.equal(base.select_at_least(at, n, 0.25, out, 2), expected.length);
    assert.deepEqual([...arena.ints(out, n)].filter((i) => i >= 0), expected.slice(0, 2));
  }
});

Deno.test("exp_sums adds up blocks and leaves out negligible ones", () => {
  for (const n of [1, 63, 64, 65, 1003]) {
    arena.reset();
    const x = normals(n, n).map((v) => v * 5), top = Math.max(...x);
    const blocks = Math.ceil(n / LOGITS_BLOCK), out = arena.allocate(logitsScratchBytes(n));
    const at = arena.store(x);
    for (const [inverse, negligible] of [[1, -1e9], [0.7, -1e9], [3, -20]]) {
      const total = base.exp_sums(at, n, inverse, negligible, out);
      const sums = new Float64Array(arena.memory.buffer.slice(out, out + 8 * blocks));
      let expected = 0;
      for (let b = 0; b < blocks; b++) {
        const values = [...x.slice(b * LOGITS_BLOCK, (b + 1) * LOGITS_BLOCK)], most = Math.max(...values);
        assert.equal(arena.floats(out + 8 * blocks, blocks)[b], most);
        const sum = values.reduce((s, v) => s + Math.exp((v - top) * inverse), 0);
        expected += (most - top) * inverse >= negligible ? sum : 0;
        if ((most - top) * inverse < negligible) assert.equal(sums[b], 0);
        else assert.ok(Math.abs(sums[b] - sum) <= 1e-5 * sum);
      }
      assert.ok(Math.abs(total - expected) <= 1e-5 * expected);
    }
  }
});

Deno.test("draw_all and draw invert the cumulative distribution", () => {
  for (const n of [1, 3, 64, 130, 500]) {
    arena.reset();
    const x = normals(n, n), top = Math.max(...x), inverse = 0.8;
    const at = arena.store(x), scratch = arena.allocate(logitsScratchBytes(n));
    const weights = [...x].map((v) => Math.exp((v - top) * inverse));
    const total = weights.reduce((a, b) => a + b, 0);
    const ids = Int32Array.from(x.keys()).reverse();
    const list = arena.store(ids);
    assert.ok(Math.abs(base.exp_sum(at, list, n, inverse, top) - total) <= 1e-5 * total);
    let below = 0;
    weights.forEach((w, i) => {
      const middle = (below + w / 2) / total;
      assert.equal(base.draw_all(at, n, inverse, -1e9, middle, scratch), i);
      assert.equal(base.draw(at, list, n, inverse, top, 0, 1 - middle), i);
      below += w;
    });
    assert.ok(weights[base.draw(at, list, n, inverse, top, 0.5, 0.999999)] >= 0.5 - 1e-6);
    assert.equal(base.draw(at, list, n, inverse, top, 1, 0.3), x.indexOf(top));
  }
});

Deno.test("keep_likeliest keeps the fewest ids that hold the mass", () => {
  for (const n of [1, 2, 3, 10, 257, 1000]) {
    for (let seed = 0; seed < 10; seed++) {
      arena.reset();
      const x = normals(n, seed + n).map((v) => seed % 2 ? v : Math.round(v * 2)), top = Math.max(...x);
      const order = [...x.keys()].sort((a, b) => x[b] - x[a] || a - b);
      const at = arena.store(x);
      const keep = (inverse: number, mass: number) => {
        const list = arena.store(Int32Array.from(x.keys()));
        const kept = base.keep_likeliest(at, list, n, inverse, top, mass);
        const ids = [...arena.ints(list, n)];
        assert.deepEqual(ids.toSorted((a, b) => a - b), [...x.keys()], "no id is lost");
        return ids.slice(0, kept).sort((a, b) => x[b] - x[a] || a - b);
      };
      for (const count of [1, 2, 7, n]) assert.deepEqual(keep(0, count), order.slice(0, count));
      const weights = order.map((i) => Math.exp((x[i] - top) * 0.9));
      const total = weights.reduce((a, b) => a + b, 0);
      let sum = 0;
      for (let k = 0; k < n; k += 1 + (n >> 3)) {
        sum = weights.slice(0, k).reduce((a, b) => a + b, 0);
        assert.deepEqual(keep(0.9, sum + weights[k] / 2), order.slice(0, k + 1));
      }
      assert.deepEqual(keep(0.9, total * 2), order);
      assert.deepEqual(keep(0.9, 0), order.slice(0, 1));
    }
  }
});
