/** Attention of every KV format against double precision, and against itself: tiles, parts and neighbours change no bit. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { Arena } from "./arena.ts";
import { KV_BLOCK_TOKENS } from "./abi.ts";
import {
  attentionScratchBytes,
  KV_FORMATS,
  KV_LAYOUTS,
  kvElementAt,
  type KvFormat,
  kvPieceBytes,
  PART_TOKENS,
  partFloats,
} from "./kv_layout.ts";
import { bindKernels, loadKernelModules } from "./load.ts";
import { ATTENTION_MODULES } from "./manifest.ts";
import { referenceAttention, referenceKvRow, referenceQuery, referenceStored } from "./reference.ts";

/**
 * Absolute, for outputs that are means of values near 1, on queries and rows as rounded. int8: weights are rounded to 7 bits
 * of the chunk's largest.
 */
const TOLERANCE: Readonly<Record<KvFormat, number>> = { f32: 4e-6, f16: 4e-6, int8: 0.01 };

const arena = new Arena(96 << 20);
const kernels = bindKernels(
  await loadKernelModules(["base", ...Object.values(ATTENTION_MODULES).map(({ name }) => name)]),
  arena.memory,
);

/** Deterministic numbers, about normal. */
function normals(count: number, seed: number): Float32Array {
  let state = seed + 1;
  const uniform = () => (state = state * 48271 % 2147483647) / 2147483647;
  return Float32Array.from({ length: count }, () => uniform() + uniform() + uniform() + uniform() - 2);
}

interface Shape {
  readonly headDim: number;
  readonly kvHeads: number;
  readonly groupSize: number;
}

/** A sequence whose keys and values are stored, in shuffled KV blocks; all else in the pools is NaN or noise. */
class Stored {
  readonly keys: Float32Array;
  readonly values: Float32Array;
  readonly kPool: number;
  readonly vPool: number;
  readonly table: number;
  readonly blocks: Int32Array;

  constructor(readonly format: KvFormat, readonly shape: Shape, readonly tokens: number, seed: number) {
    const { headDim, kvHeads } = shape;
    const width = kvHeads * headDim, count = Math.ceil(tokens / KV_BLOCK_TOKENS);
    this.keys = normals(tokens * width, seed);
    this.values = normals(tokens * width, seed + 1);
    const piece = kvPieceBytes(format, headDim);
    this.kPool = arena.allocate(count * kvHeads * piece.k);
    this.vPool = arena.allocate(count * kvHeads * piece.v);
    arena.bytes(this.kPool, count * kvHeads * piece.k).fill(255);
    arena.bytes(this.vPool, count * kvHeads * piece.v).fill(255);
    this.blocks = Int32Array.from({ length: count }, (_, i) => (i * 7 + 3) % count);
    if (new Set(this.blocks).size < count) this.blocks.forEach((_, i, all) => all[i] = count - 1 - i);
    const slots = Int32Array.from(
      { length: tokens },
      (_, j) => this.blocks[j >> 4] * KV_BLOCK_TOKENS + (j & 15),
    );
    const [k, v] = [arena.store(this.keys), arena.store(this.values)];
    kernels.attention(format).kv_write(
      k,
      width,
      v,
      width,
      tokens,
      kvHeads,
      headDim,
      arena.store(slots),
      this.kPool,
      this.vPool,
      arena.allocate(headDim * 4 + 64),
    );
    this.table = arena.store(this.blocks);
  }

  /** Rows of one KV head as the pools hold them. */
  rows(part: "k" | "v", kvHead: number, context: number, reference = referenceKvRow): number[][] {
    const { headDim, kvHeads } = this.shape;
    return Array.from({ length: context }, (_, j) => {
      const at = (j * kvHeads + kvHead) * headDim;
      return reference(
        this.format,
        part,
        (part === "k" ? this.keys : this.values).subarray(at, at + headDim),
      );
    });
  }
}

interface Query {
  readonly q: Float32Array;
  readonly contexts: readonly number[];
  readonly window: number;
  readonly softCap?: number;
}

/** Outputs `[rows][heads x headDim]`. @param tile rows of a call @param split through partial softmaxes */
function attend(
  stored: Stored,
  { q, contexts, window, softCap = 0 }: Query,
  { tile, split }: { tile: number; split: boolean },
): Float32Array {
  const { headDim, kvHeads, groupSize } = stored.shape;
  const rows = contexts.length, width = kvHeads * groupSize * headDim, stride = width + 4;
  const padded = new Float32Array(rows * stride);
  for (let r = 0; r < rows; r++) padded.set(q.subarray(r * width, (r + 1) * width), r * stride);
  const maxParts = Math.ceil(Math.max(...contexts) / PART_TOKENS) + 1;
  const out = arena.allocate(rows * stride * 4);
  arena.floats(out, rows * stride).fill(7);
  const parts = split ? arena.allocate(rows * kvHeads * groupSize * maxParts * partFloats(headDim) * 4) : 0;
  const scratchBytes = attentionScratchBytes(tile * groupSize, headDim);
  const scratch = arena.allocate(scratchBytes + 64);
  arena.bytes(scratch, scratchBytes + 64).fill(255);
  const places = {
    q: arena.store(padded),
    contexts: arena.store(Int32Array.from(contexts)),
    tables: arena.store(Int32Array.from(contexts, () => stored.table)),
  };
  const kernel = kernels.attention(stored.format);
  for (let row = 0; row < rows; row += tile) {
    const count = Math.min(tile, rows - row);
    const call = (kvBegin: number, kvEnd: number, partBegin: number, partEnd: number) =>
      kernel.attention(
        places.q,
        stride,
        out,
        stride,
        row,
        count,
        kvBegin,
        kvEnd,
        places.contexts,
        places.tables,
        stored.kPool,
        stored.vPool,
        kvHeads,
        groupSize,
        headDim,
        1 / Math.sqrt(headDim),
        window,
        softCap,
        scratch,
        partBegin,
        partEnd,
        parts,
        maxParts,
      );
    if (split) {
      for (let p = maxParts - 2; p >= 0; p--) call(0, kvHeads, p, p + 1);
    } else {
      call(0, 1, 0, 0);
      call(1, kvHeads, 0, 0);
    }
  }
  if (split) {
    const items = rows * kvHeads * groupSize;
    const [heads, merge] = [kvHeads * groupSize, kernel.attention_merge];
    for (const [from, to] of [[0, 1], [1, items]]) {
      merge(
        parts,
        maxParts,
        out,
        stride,
        from,
        to,
        places.contexts,
        heads,
        headDim,
        window,
        scratch,
      );
    }
  }
  assert.ok(arena.bytes(scratch + scratchBytes, 64).every((b) => b === 255), "scratch is not overrun");
  const result = new Float32Array(rows * width);
  for (let r = 0; r < rows; r++) {
    result.set(arena.floats(out + r * stride * 4, width), r * width);
    assert.ok(arena.floats(out + (r * stride + width) * 4, 4).every((x) => x === 7), "out is not overrun");
  }
  return result;
}

function expected(
  stored: Stored,
  { q, contexts, window, softCap }: Query,
  row: number,
  head: number,
): number[] {
  const { headDim, kvHeads, groupSize } = stored.shape;
  const kvHead = Math.floor(head / groupSize), at = (row * kvHeads * groupSize + head) * headDim;
  return referenceAttention(
    referenceQuery(stored.format, q.subarray(at, at + headDim)),
    stored.rows("k", kvHead, contexts[row]),
    stored.rows("v", kvHead, contexts[row]),
    { scale: 1 / Math.sqrt(headDim), window, softCap },
  );
}

const CASES: readonly (Shape & Omit<Query, "q">)[] = [
  { headDim: 64, kvHeads: 2, groupSize: 3, contexts: [1, 16, 17, 100], window: 0, softCap: 5 },
  { headDim: 20, kvHeads: 1, groupSize: 2, contexts: [70, 1100], window: 600, softCap: 0.5 },
  { headDim: 64, kvHeads: 3, groupSize: 3, contexts: [1, 16, 17, 100], window: 0 },
  { headDim: 10, kvHeads: 2, groupSize: 1, contexts: [5, 33], window: 0 },
  { headDim: 7, kvHeads: 1, groupSize: 7, contexts: [20, 64, 65], window: 0 },
  { headDim: 20, kvHeads: 2, groupSize: 2, contexts: [50, 31], window: 0 },
  { headDim: 36, kvHeads: 1, groupSize: 4, contexts: [3, 40, 64, 190], window: 37 },
  { headDim: 80, kvHeads: 1, groupSize: 6, contexts: [130, 600], window: 0 },
  { headDim: 96, kvHeads: 2, groupSize: 1, contexts: [129], window: 64 },
  { headDim: 128, kvHeads: 1, groupSize: 8, contexts: [77, 1100], window: 0 },
  { headDim: 16, kvHeads: 2, groupSize: 5, contexts: [70, 2, 700], window: 1 },
  { headDim: 32, kvHeads: 1, groupSize: 3, contexts: [1200, 1000], window: 530 },
  { headDim: 1024, kvHeads: 2, groupSize: 3, contexts: [40, 9], window: 0 },
];

for (const format of KV_FORMATS) {
  for (const { contexts, window, softCap, ...shape } of CASES) {
    Deno.test(`${format} attention equals its reference: ${JSON.stringify({ ...shape, contexts, window, softCap })}`, () => {
      arena.reset();
      const stored = new Stored(format, shape, Math.max(...contexts), shape.headDim);
      const heads = shape.kvHeads * shape.groupSize;
      const q = normals(contexts.length * heads * shape.headDim, 77).map((v) => v * 3);
      const query = { q, contexts, window, softCap };
      const out = attend(stored, query, { tile: contexts.length, split: false });
      contexts.forEach((_, row) => {
        for (let head = 0; head < heads; head++) {
          expected(stored, query, row, head).forEach((value, d) => {
            const actual = out[(row * heads + head) * shape.headDim + d];
            const error = Math.abs(actual - value);
            assert.ok(
              error < TOLERANCE[format],
              `row ${row} head ${head} dim ${d}: ${actual}, must be ${value}`,
            );
          });
        }
      });
    });
  }

  Deno.test(`${format} attention gives a row the same bits alone, in tiles and in parts`, () => {
    const cases = fc.record({
      headDim: fc.constantFrom(8, 33, 64),
      kvHeads: fc.integer({ min: 1, max: 2 }),
      groupSize: fc.integer({ min: 1, max: 5 }),
      contexts: fc.array(fc.integer({ min: 1, max: 1100 }), { minLength: 1, maxLength: 9 }),
      window: fc.constantFrom(0, 0, 5, 100, 700),
      tile: fc.integer({ min: 2, max: 9 }),
      seed: fc.nat(1000),
    });
    fc.assert(
      fc.property(cases, ({ contexts, window, tile, seed, ...shape }) => {
        arena.reset();
        const stored = new Stored(format, shape, Math.max(...contexts), seed);
        const q = normals(contexts.length * shape.kvHeads * shape.groupSize * shape.headDim, seed + 9);
        const query = { q, contexts, window };
        const alone = attend(stored, query, { tile: 1, split: false });
        assert.deepEqual(attend(stored, query, { tile, split: false }), alone);
        assert.deepEqual(attend(stored, query, { tile, split: true }), alone);
        assert.deepEqual(attend(stored, query, { tile: 1, split: true }), alone);
      }),
      { numRuns: 25 },
    );
  });

  Deno.test(`${format} kv_write stores what the reference says where the layout says, extremes too`, () => {
    for (const headDim of [1, 7, 36, 64, 96]) {
      arena.reset();
      const shape = { headDim, kvHeads: 2, groupSize: 1 };
      const stored = new Stored(format, shape, 19, 3);
      const piece = kvPieceBytes(format, headDim);
      for (const [part, pool] of [["k", stored.kPool], ["v", stored.vPool]] as const) {
        for (let kvHead = 0; kvHead < 2; kvHead++) {
          stored.rows(part, kvHead, 19, referenceStored).forEach((row, token) => {
            const at = pool + (stored.blocks[token >> 4] * 2 + kvHead) * piece[part];
            row.forEach((value, dim) => {
              const place = { token: token & 15, dim };
              assert.equal(readElement(format, at, kvElementAt(format, part, place), token & 15), value);
            });
          });
        }
      }
    }
  });
}

/** What is stored as a number: code x scale for formats with scales. */
function readElement(format: KvFormat, piece: number, at: number, token: number): number {
  const view = new DataView(arena.memory.buffer, piece, at + 4);
  switch (format) {
    case "f32":
      return view.getFloat32(at, true);
    case "f16":
      return view.getFloat16(at, true);
    case "int8":
      return view.getInt8(at) * view.getFloat32(4 * token, true);
  }
}

Deno.test("f16 rows saturate, keep zeros, subnormals and ties to even", () => {
  arena.reset();
  const row = Float32Array.of(
    0,
    1e9,
    -1e9,
    65504,
    65519,
    5.960464477539063e-8,
    -1e-7,
    6e-5,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    2 ** -14,
    1 / 3,
  );
  const width = row.length, piece = kvPieceBytes("f16", width);
  const [kPool, vPool, at, slot] = [
    arena.allocate(piece.k),
    arena.allocate(piece.v),
    arena.store(row),
    arena.store(Int32Array.of(0)),
  ];
  kernels.attention("f16").kv_write(
    at,
    width,
    at,
    width,
    1,
    1,
    width,
    slot,
    kPool,
    vPool,
    arena.allocate(width * 4 + 64),
  );
  const stored = Array.from(
    row,
    (_, dim) => readElement("f16", vPool, kvElementAt("f16", "v", { token: 0, dim }), 0),
  );
  assert.deepEqual(stored, referenceStored("f16", "v", row));
  assert.equal(stored[1], 65504);
});

Deno.test("int8 stores rows of zeros and of few large values as the reference does", () => {
  for (const row of [new Float32Array(8), Float32Array.of(0, 0, 1000, 0, -3, 0, 0, -1000)]) {
    arena.reset();
    const piece = kvPieceBytes("int8", 8);
    const [kPool, vPool, at] = [arena.allocate(piece.k), arena.allocate(piece.v), arena.store(row)];
    const slot = arena.store(Int32Array.of(5));
    kernels.attention("int8").kv_write(at, 8, at, 8, 1, 1, 8, slot, kPool, vPool, arena.allocate(64));
    for (const [part, pool] of [["k", kPool], ["v", vPool]] as const) {
      const stored = Array.from(
        row,
        (_, dim) => readElement("int8", pool, kvElementAt("int8", part, { token: 5, dim }), 5),
      );
      assert.deepEqual(stored, referenceStored("int8", part, row));
    }
  }
});

Deno.test("pieces are whole 16-byte vectors, of as many bytes as their elements and headers", () => {
  for (const format of KV_FORMATS) {
    const { elementBytes, headerBytes } = KV_LAYOUTS[format];
    for (const headDim of [40, 64, 80, 128]) {
      const { k, v } = kvPieceBytes(format, headDim);
      assert.equal(k % 16 + v % 16, 0);
      assert.equal(k, headerBytes.k + 16 * headDim * elementBytes);
      assert.equal(v, headerBytes.v + 16 * headDim * elementBytes);
    }
  }
});
