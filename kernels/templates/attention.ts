/**
 * AssemblyScript source of paged attention (abi.ts: `kv_write`, `attention`, `attention_merge`), once a KV format.
 *
 * Flash attention: all query heads that share a KV head, of one row (decode) or of several rows of a sequence (prefill),
 * pass together over chunks of 64 tokens: scores of 4 queries at a time, then an online softmax (running maximum and sum,
 * the weighted sum of V rescaled when the maximum grows), then their weights times V. Every 512 tokens the partial softmax
 * is closed and merged. Chunks and parts are counted from position 0 and a query's numbers never meet another's, so its
 * result is the same bits whatever rows share its tile and however its context is shared by threads.
 *
 * int8 uses the 8-bit dot product, whose second operand has 7 bits on every machine (0..127): the query as code + 64 (each
 * token stores -64 x its sum of codes), and the weights, multiplied by V's scales, in units of the chunk's largest / 127.
 * 16-bit arithmetic on widened codes, with 14-bit queries, decoded 1.4 to 1.8x slower. Queries and keys are rotated by a Hadamard
 * matrix before they are rounded, which leaves their products as they are and spreads their outliers over the head:
 * perplexity of SmolLM2 on 3584 tokens of WikiText-2, f32 weights: K and V in 8 bits +0.11 %, rotated -0.03 %; queries and
 * weights in 7 bits besides +0.25 %, rotated +0.07 % (20,480 tokens: -0.03 %).
 *
 * Register budget (15 usable v128 registers on x64): queries x vectors sums, the vectors, one spread value and a product.
 * Queries lie side by side by fours, so that one load (and one bounds check) serves four of them.
 */
import { ATTENTION_CHUNK, KV_LAYOUTS, type KvFormat, PART_TOKENS } from "../kv_layout.ts";

/** Bytes of a query's record before its weighted sum: maximum, sum, and where a chunk leaves its factor and unit. */
const RECORD_HEADER = 16, FACTOR = 8, UNIT = 12;
/** Vectors of 4 tokens (scores) or 4 dims (mix) taken together, by number of queries. */
const VECTORS: Record<number, number> = { 1: 4, 2: 4, 3: 2, 4: 2 };
/** Steps (kv_layout.ts) unrolled. */
const UNROLL = 4;
const QUERIES = [1, 2, 3, 4];
/** Bytes of a query's row of scores. */
const SCORE_BYTES = 4 * ATTENTION_CHUNK;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const lines = (parts: string[]): string => parts.join("\n");
const cells = (queries: number, vectors: number) =>
  range(queries).flatMap((h) => range(vectors).map((v) => ({ h, v, sum: `a${h}_${v}` })));

/** How the loops read and multiply a format. */
interface Arithmetic {
  /** Bytes of a vector of 4 lanes. */
  readonly vectorBytes: number;
  readonly load: (address: string, offset: number) => string;
  readonly product: (sum: string, vector: string, spread: string) => string;
  /** A sum as f32. */
  readonly float: (sum: string) => string;
}

const floats = (load: Arithmetic["load"], vectorBytes: number): Arithmetic => ({
  vectorBytes,
  load,
  product: (sum, vector, spread) => `f32x4.relaxed_madd(${vector}, ${spread}, ${sum})`,
  float: (sum) => sum,
});

const ARITHMETIC: Readonly<Record<KvFormat, Arithmetic>> = {
  f32: floats((address, offset) => `v128.load(${address}, ${offset})`, 16),
  f16: floats((address, offset) => `from_halves(v128.load16x4_s(${address}, ${offset}))`, 8),
  int8: {
    vectorBytes: 16,
    load: (address, offset) => `v128.load(${address}, ${offset})`,
    product: (sum, vector, spread) =>
      `i32x4.add(${sum}, i32x4.dot_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(${vector}, ${spread}), ones))`,
    float: (sum) => `f32x4.convert_i32x4_s(${sum})`,
  },
};

/** Byte order that spreads the i-th lane of a vector. */
const SPREAD = range(4).map((i) => range(16).map((byte) => 4 * i + byte % 4).join(", "));
const spread = (lane: number): string => `i8x16.shuffle(s, s, ${SPREAD[lane]})`;

/** Where a run of steps lies: bytes from step to step, offset of a vector inside a step. */
interface Stream {
  readonly math: Arithmetic;
  readonly stepBytes: number;
  readonly offsets: readonly number[];
}

/**
 * `sums += vectors x spread` over `n` steps from `p` on, multipliers at `u`: those of one query follow each other (four
 * steps a load), those of several lie side by side (four queries a load).
 */
function steps({ math, stepBytes, offsets }: Stream, queries: number, n: number): string {
  const products = (h: number, lane: number) => [
    `        t = ${spread(lane)};`,
    ...offsets.map((_, v) => `        a${h}_${v} = ${math.product(`a${h}_${v}`, `m${v}`, "t")};`),
  ];
  const load = (i: number) =>
    offsets.map((offset, v) => `        m${v} = ${math.load("p", i * stepBytes + offset)};`);
  if (queries === 1) {
    const first = `        s = ${n === UNROLL ? "v128.load(u)" : "v128.load32_zero(u)"};`;
    return lines([first, ...range(n).flatMap((i) => [...load(i), ...products(0, i)])]);
  }
  return lines(range(n).flatMap((i) => [
    ...load(i),
    `        s = v128.load(u, ${16 * i});`,
    ...range(queries).flatMap((h) => products(h, h)),
  ]));
}

function stepLoop(stream: Stream, queries: number): string {
  const size = queries === 1 ? 4 : 16;
  return `
      for (; left >= ${UNROLL}; left -= ${UNROLL}) {
${steps(stream, queries, UNROLL)}
        p += ${UNROLL * stream.stepBytes}; u += ${UNROLL * size};
      }
      for (; left > 0; left--) {
${steps(stream, queries, 1)}
        p += ${stream.stepBytes}; u += ${size};
      }`;
}

const locals = (queries: number, vectors: number): string =>
  [
    ...cells(queries, vectors).map(({ sum }) => `${sum} = zero`),
    ...range(vectors).map((v) => `m${v} = zero`),
    "s = zero",
    "t = zero",
  ].join(", ");

/** int8: sums open with what the offset of the query's codes adds, -64 x the token's sum of codes. */
const startFromSums = (queries: number, vectors: number): string =>
  lines(range(vectors).map((v) =>
    `    t = v128.load(k + (half << 4), ${64 + 16 * v}); ${range(queries).map((h) => `a${h}_${v} = t;`).join(" ")}`
  ));

/** Scores of one KV block's 16 tokens, in units of ln 2. `k` is its piece, `scales` the queries' (int8). */
function scores(format: KvFormat, queries: number): string {
  const math = ARITHMETIC[format], vectors = VECTORS[queries];
  const { k: headerBytes } = KV_LAYOUTS[format].headerBytes;
  const stream = { math, stepBytes: 4 * math.vectorBytes, offsets: range(vectors).map((v) => v * math.vectorBytes) };
  const scaled = ({ h, v, sum }: { h: number; v: number; sum: string }) =>
    headerBytes === 0
      ? sum
      : `f32x4.mul(f32x4.mul(${math.float(sum)}, v128.load32_splat(scales, ${4 * h})), v128.load(k + (half << 4), ${
        16 * v
      }))`;
  return `
@inline function scores_${format}_${queries}(q: usize, scales: usize, k: usize, count: i32, out: usize): void {
  const zero = i32x4.splat(0), ones = ONES;
  for (let half: usize = 0; half < 4; half += ${vectors}) {
    let p = k + ${headerBytes} + half * ${math.vectorBytes}, u = q, left = count;
    let ${locals(queries, vectors)};
${headerBytes === 0 ? "" : startFromSums(queries, vectors)}
${stepLoop(stream, queries)}
${
    lines(
      cells(queries, vectors).map((cell) =>
        `    v128.store(out + (half << 4), ${scaled(cell)}, ${cell.h * SCORE_BYTES + 16 * cell.v});`
      ),
    )
  }
  }
}
`;
}

/**
 * acc = acc x factor + sum over the chunk's tokens of weight x V, for `vectors` x 4 dims from tile `at` (8 dims) on. Tokens from
 * `to` on are not read but as the second of a pair, whose weight is 0.
 */
function mix(format: KvFormat, queries: number, vectors: number): string {
  const math = ARITHMETIC[format];
  const { together } = KV_LAYOUTS[format], headerBytes = KV_LAYOUTS[format].headerBytes.v;
  const tileBytes = 16 / together * 2 * math.vectorBytes;
  const stream = {
    math,
    stepBytes: 2 * math.vectorBytes,
    offsets: range(vectors).map((v) => (v >> 1) * tileBytes + (v & 1) * math.vectorBytes),
  };
  const stepsOf = (tokens: string) => together === 1 ? tokens : `(${tokens} + ${together - 1}) / ${together}`;
  const size = (queries === 1 ? 4 : 16) * 16 / together;
  const update = ({ v, sum }: { v: number; sum: string }) => {
    const added = headerBytes === 0 ? sum : `f32x4.mul(${math.float(sum)}, g)`;
    return `  v128.store(d, f32x4.relaxed_madd(v128.load(d, ${16 * v}), f, ${added}), ${16 * v});`;
  };
  return `
@inline function mix_${format}_${queries}_${vectors}(weights: usize, table: usize, from: i32, to: i32, v: usize, vBlock: usize, at: usize, state: usize, recordBytes: usize): void {
  const zero = i32x4.splat(0), ones = ONES;
  let ${locals(queries, vectors)}, w = weights;
  for (let j = from; j < to; j += 16, w += ${size}) {
    let p = v + <usize>load<i32>(table + (<usize>(j >> 4) << 2)) * vBlock + ${headerBytes} + at * ${tileBytes}, u = w;
    let left = ${stepsOf("min(16, to - j)")};
${stepLoop(stream, queries)}
  }
  let o = state, d = o, f = zero, g = zero;
${
    lines(range(queries).flatMap((h) => [
      `  d = o + (at << 5) + ${RECORD_HEADER}; f = v128.load32_splat(o, ${FACTOR}); g = v128.load32_splat(o, ${UNIT});`,
      ...cells(queries, vectors).filter((cell) => cell.h === h).map(update),
      `  o += recordBytes;`,
    ]))
  }
}
`;
}

/** One chunk for `queries` queries: scores, softmax, mix. `from`, `to`: the tile's tokens in it; `from` opens a KV block. */
function chunk(format: KvFormat, queries: number): string {
  const vectors = VECTORS[queries];
  const call = (count: number) =>
    `mix_${format}_${queries}_${count}(weights, table, from, to, v, vBlock, at, state, recordBytes);`;
  return `
function chunk_${format}_${queries}(q: usize, scales: usize, spans: usize, table: usize, from: i32, to: i32, k: usize, kBlock: usize, v: usize, vBlock: usize, steps: i32, width: i32, s: usize, weights: usize, state: usize, softCap: f32): void {
  const recordBytes = (<usize>width << 2) + ${RECORD_HEADER};
  for (let j = from; j < to; j += 16) {
    const piece = k + <usize>load<i32>(table + (<usize>(j >> 4) << 2)) * kBlock;
    scores_${format}_${queries}(q, scales, piece, steps, s + (<usize>(j - from) << 2));
  }
  for (let h = 0; h < ${queries}; h++) {
    const span = spans + (<usize>h << 3);
    soften_${format}(s + h * ${SCORE_BYTES}, from, to, load<i32>(span), load<i32>(span, 4), table, v, vBlock, state + h * recordBytes, softCap);
  }
  arrange_${queries === 1 ? "one" : "four"}(s, weights, (to - from + 15) >> 4, state, recordBytes, ${queries});
  let at: usize = 0, left = width >> 3;
  for (; left >= ${vectors / 2}; left -= ${vectors / 2}, at += ${vectors / 2}) ${call(vectors)}
  ${vectors > 2 ? `if (left) ${call(2)}` : ""}
}
`;
}

/**
 * Turns a query's scores of tokens from..to-1, whole KV blocks at `s`, into weights 2^(score - maximum) in place, 0 outside
 * its visible tokens first..last-1, capped first where softCap is not 0; updates the maximum and the sum of its record; leaves there the factor of what was summed
 * before. int8: weights are multiplied by V's scales, and the record's unit becomes what 1 code of weight is worth.
 */
function soften(format: KvFormat): string {
  const scaled = KV_LAYOUTS[format].headerBytes.v > 0;
  const weigh = (i: number) =>
    scaled
      ? `
    d = f32x4.sub(v128.load(p, ${16 * i}), top4);
    e = exp2_rough(d, low, p3, p2, p1, p0, one); w = f32x4.mul(e, v128.load(vScales, ${16 * i}));
    // Outside the visible tokens V's scale may be anything: the weight is 0.
    if (hidden) { d = f32x4.ge(d, low); e = v128.and(e, d); w = v128.and(w, d); }
    sum = f32x4.add(sum, e); most = f32x4.pmax(most, w);
    v128.store(p, w, ${16 * i});`
      : `
    e = exp2_4(f32x4.sub(v128.load(p, ${16 * i}), top4));
    sum = f32x4.add(sum, e);
    v128.store(p, e, ${16 * i});`;
  const loop = scaled
    ? `
  const hidden = first > from || last < end;
  const low = EXP2_LOW, p3 = ROUGH_P3, p2 = ROUGH_P2, p1 = ROUGH_P1, p0 = ROUGH_P0, one = EXP_ONE;
  for (let j = from; j < end; j += 16, p += 64) {
    const vScales = v + <usize>load<i32>(table + (<usize>(j >> 4) << 2)) * vBlock;${range(4).map(weigh).join("")}
  }`
    : `
  for (; p < stop; p += 64) {${range(4).map(weigh).join("")}
  }`;
  return `
function soften_${format}(s: usize, from: i32, to: i32, first: i32, last: i32, table: usize, v: usize, vBlock: usize, record: usize, softCap: f32): void {
  const end = (to + 15) & -16, stop = s + (<usize>(end - from) << 2);
  if (softCap > 0) cap_scores(s, stop, f32x4.splat(softCap));
  for (let j = from; j < min(first, end); j++) store<f32>(s + (<usize>(j - from) << 2), -Infinity);
  for (let j = max(last, from); j < end; j++) store<f32>(s + (<usize>(j - from) << 2), -Infinity);
  const zero = f32x4.splat(0), before = load<f32>(record);
  let m = f32x4.splat(before);
  for (let p = s; p < stop; p += 64) {
    m = f32x4.pmax(m, f32x4.pmax(f32x4.pmax(v128.load(p), v128.load(p, 16)), f32x4.pmax(v128.load(p, 32), v128.load(p, 48))));
  }
  const now = max4(m), top4 = f32x4.splat(now);
  let sum = zero, most = zero, d = zero, e = zero, w = zero, p = s;${loop}
  const factor = exp2_1(before - now);
  store<f32>(record, now);
  store<f32>(record, load<f32>(record, 4) * factor + sum4(sum), 4);
  store<f32>(record, factor, ${FACTOR});
${scaled ? `  store<f32>(record, max4(most) * (1.0 / MAX_WEIGHT), ${UNIT});` : ""}
}
`;
}

/** Weights of a group of queries as the mix reads them: of one query in a row, of four side by side. */
const ARRANGE: Readonly<Record<"floats" | "codes", string>> = {
  floats: `
@inline function arrange_one(s: usize, out: usize, blocks: i32, state: usize, recordBytes: usize, queries: i32): void {
  memory.copy(out, s, <usize>blocks << 6);
}
function arrange_four(s: usize, out: usize, blocks: i32, state: usize, recordBytes: usize, queries: i32): void {
  for (let left = blocks << 2; left > 0; left--, s += 16, out += 64) {
    transpose(v128.load(s), v128.load(s, ${SCORE_BYTES}), v128.load(s, ${2 * SCORE_BYTES}), v128.load(s, ${
    3 * SCORE_BYTES
  }), out);
  }
}
`,
  codes: `
const MAX_WEIGHT: f32 = 127;
@inline function unit_of(record: usize): v128 {
  const unit = load<f32>(record, ${UNIT});
  return f32x4.splat(unit > 1e-38 ? 1 / unit : 0);
}
@inline function arrange_one(s: usize, out: usize, blocks: i32, state: usize, recordBytes: usize, queries: i32): void {
  const k = unit_of(state);
  for (let left = blocks; left > 0; left--, s += 64, out += 16) v128.store(out, codes16(s, k));
}
function arrange_four(s: usize, out: usize, blocks: i32, state: usize, recordBytes: usize, queries: i32): void {
  const a = unit_of(state), b = unit_of(state + recordBytes), c = unit_of(state + min(2, queries - 1) * recordBytes), d = unit_of(state + min(3, queries - 1) * recordBytes);
  for (let left = blocks; left > 0; left--, s += 64, out += 64) {
    transpose(codes16(s, a), codes16(s + ${SCORE_BYTES}, b), codes16(s + ${2 * SCORE_BYTES}, c), codes16(s + ${3 * SCORE_BYTES}, d), out);
  }
}
`,
};

/**
 * Queries of a group as the scores read them: f32 times scale, or codes and their scales. `row` is scratch of headDim
 * floats, rounded up to 16.
 */
const PREPARE: Readonly<Record<"floats" | "codes", string>> = {
  floats: `
@inline function prepare(q: usize, headDim: i32, scale: f32, out: usize, stride: usize, scales: usize, row: usize): void {
  for (let d = 0; d < headDim; d++, q += 4, out += stride) store<f32>(out, load<f32>(q) * scale);
}
`,
  codes: `
const QUERY_OFFSET: i32 = 64, MAX_QUERY: f32 = 63;
@inline function prepare(q: usize, headDim: i32, scale: f32, out: usize, stride: usize, scales: usize, row: usize): void {
  const n = rotate(q, headDim, row), top = abs_max(row, headDim), zero = !(top > 1e-30);
  store<f32>(scales, zero ? 0 : top * scale / (MAX_QUERY * <f32>n));
  const k = f32x4.splat(zero ? 0 : MAX_QUERY / top), offset = i8x16.splat(<i8>QUERY_OFFSET);
  for (let d = 0; d < headDim; d += 16, row += 64, out += stride << 2) {
    store_steps(out, stride, i8x16.add(codes16(row, k), offset), headDim - d + 3 >> 2);
  }
}
`,
};

/** A row of one KV head into its piece, token `at`. */
const WRITE: Readonly<Record<KvFormat, string>> = {
  f32: `
@inline function write_k(from: usize, n: i32, piece: usize, at: i32, row: usize): void {
  let p = piece + (<usize>at << 2);
  for (let d = 0; d < n; d++, from += 4, p += 64) store<f32>(p, load<f32>(from));
}
@inline function write_v(from: usize, n: i32, piece: usize, at: i32): void {
  let p = piece + (<usize>at << 5);
  for (let d = 0; d < n; d++, from += 4) store<f32>(p + (<usize>(d >> 3) << 9) + (<usize>(d & 7) << 2), load<f32>(from));
}
`,
  f16: `
@inline function write_k(from: usize, n: i32, piece: usize, at: i32, row: usize): void {
  let p = piece + (<usize>at << 1);
  for (let d = 0; d < n; d++, from += 4, p += 32) store<u16>(p, to_half(load<f32>(from)));
}
@inline function write_v(from: usize, n: i32, piece: usize, at: i32): void {
  let p = piece + (<usize>at << 4);
  for (let d = 0; d < n; d++, from += 4) store<u16>(p + (<usize>(d >> 3) << 8) + (<usize>(d & 7) << 1), to_half(load<f32>(from)));
}
`,
  int8: `
@inline function write_k(from: usize, n: i32, piece: usize, at: i32, row: usize): void {
  rotate(from, n, row);
  const top = abs_max(row, n), zero = !(top > 1e-30);
  store<f32>(piece + (<usize>at << 2), zero ? 0 : top / 127);
  const k = f32x4.splat(zero ? 0 : 127 / top);
  let sums = i32x4.splat(0), p = piece + 128 + (<usize>at << 2);
  for (let d = 0; d < n; d += 16, row += 64, p += 256) {
    const codes = codes16(row, k);
    sums = i32x4.add(sums, i32x4.extadd_pairwise_i16x8_s(i16x8.extadd_pairwise_i8x16_s(codes)));
    store_steps(p, 64, codes, n - d + 3 >> 2);
  }
  const sum = i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1) + i32x4.extract_lane(sums, 2) + i32x4.extract_lane(sums, 3);
  store<i32>(piece + (<usize>at << 2), -QUERY_OFFSET * sum, 64);
}
@inline function write_v(from: usize, n: i32, piece: usize, at: i32): void {
  const top = abs_max(from, n), zero = !(top > 1e-30);
  const k: f32 = zero ? 0 : 127 / top;
  store<f32>(piece + (<usize>at << 2), zero ? 0 : top / 127);
  const p = piece + 64 + (<usize>(at >> 2) << 5) + (at & 3);
  for (let d = 0; d < n; d++, from += 4) {
    store<i8>(p + (<usize>(d >> 3) << 7) + (<usize>(d & 7) << 2), <i8><i32>nearest(load<f32>(from) * k));
  }
}
`,
};

const SHARED = `
// 2^x for x <= 0: Cephes exp2f, about 1 ulp; 2^0 is exactly 1, below -126 the result is 0.
export let EXP2_LOW: v128 = f32x4.splat(-126);
export let EXP2_P5: v128 = f32x4.splat(1.535336188319500e-4);
export let EXP2_P4: v128 = f32x4.splat(1.339887440266574e-3);
export let EXP2_P3: v128 = f32x4.splat(9.618437357674640e-3);
export let EXP2_P2: v128 = f32x4.splat(5.550332471162809e-2);
export let EXP2_P1: v128 = f32x4.splat(2.402264791363012e-1);
export let EXP2_P0: v128 = f32x4.splat(6.931472028550421e-1);

@inline function exp2_4(v: v128): v128 {
  const x = f32x4.pmax(v, EXP2_LOW), n = f32x4.nearest(x), r = f32x4.sub(x, n);
  let p = f32x4.relaxed_madd(EXP2_P5, r, EXP2_P4);
  p = f32x4.relaxed_madd(p, r, EXP2_P3);
  p = f32x4.relaxed_madd(p, r, EXP2_P2);
  p = f32x4.relaxed_madd(p, r, EXP2_P1);
  p = f32x4.relaxed_madd(p, r, EXP2_P0);
  p = f32x4.relaxed_madd(p, r, EXP_ONE);
  const e = i32x4.add(p, i32x4.shl(i32x4.relaxed_trunc_f32x4_s(n), 23));
  return v128.andnot(e, f32x4.lt(v, EXP2_LOW));
}
@inline function exp2_1(x: f32): f32 { return f32x4.extract_lane(exp2_4(f32x4.splat(x)), 0); }

@inline function transpose(a: v128, b: v128, c: v128, d: v128, out: usize): void {
  const l = i32x4.shuffle(a, b, 0, 4, 1, 5), m = i32x4.shuffle(c, d, 0, 4, 1, 5);
  const h = i32x4.shuffle(a, b, 2, 6, 3, 7), i = i32x4.shuffle(c, d, 2, 6, 3, 7);
  v128.store(out, i64x2.shuffle(l, m, 0, 2)); v128.store(out, i64x2.shuffle(l, m, 1, 3), 16);
  v128.store(out, i64x2.shuffle(h, i, 0, 2), 32); v128.store(out, i64x2.shuffle(h, i, 1, 3), 48);
}

@inline function store_dims(out: usize, v: v128, dims: i32): void {
  if (dims >= 4) { v128.store(out, v); return; }
  store<f32>(out, f32x4.extract_lane(v, 0));
  if (dims > 1) store<f32>(out, f32x4.extract_lane(v, 1), 4);
  if (dims > 2) store<f32>(out, f32x4.extract_lane(v, 2), 8);
}

// Four halves, sign-extended to 32 bits, as floats: the exponent's bias is made up by a multiplication, so subnormals are
// exact. Exponent 31 (infinity) is never written.
export let HALF_MASK: v128 = i32x4.splat(0x8fffe000);
export let HALF_BIAS: v128 = f32x4.splat(5.192296858534828e33); // 2^112
@inline function from_halves(v: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shl(v, 13), HALF_MASK), HALF_BIAS);
}
// Nearest half, ties to even, beyond +-65504 saturated; NaN becomes +-65504.
@inline function to_half(x: f32): u16 {
  const bits = reinterpret<u32>(x);
  const small = abs(x) < 65504 ? abs(x) : <f32>65504;
  const b = reinterpret<u32>(small * <f32>1.925929944387236e-34); // 2^-112
  return <u16>((b + 0xfff + ((b >> 13) & 1)) >> 13 | (bits >> 16 & 0x8000));
}

// cap tanh(score / cap), whole KV blocks of scores; before the hidden ones are masked, since of those it would make -cap.
function cap_scores(s: usize, stop: usize, cap: v128): void {
  for (; s < stop; s += 16) v128.store(s, cap4(v128.load(s), cap));
}

// total = total joined with a partial softmax: record [maximum, sum, -, -, weighted sum of V].
@inline function join(total: usize, part: usize, width: i32): void {
  const a = load<f32>(total), b = load<f32>(part), top = max(a, b);
  const f = exp2_1(a - top), g = exp2_1(b - top);
  store<f32>(total, top);
  store<f32>(total, load<f32>(total, 4) * f + load<f32>(part, 4) * g, 4);
  const f4 = f32x4.splat(f), g4 = f32x4.splat(g);
  for (let d = 0; d < width; d += 4) {
    const o = <usize>d << 2;
    v128.store(total + o, f32x4.relaxed_madd(v128.load(total + o, 16), f4, f32x4.mul(v128.load(part + o, 16), g4)), 16);
  }
}

const LOG2E: f32 = 1.44269504088896341;

// Largest magnitude of x[0..n).
@inline function abs_max(x: usize, n: i32): f32 {
  let m = f32x4.splat(0), i = 0;
  for (; i + 4 <= n; i += 4) m = f32x4.pmax(m, f32x4.abs(v128.load(x + (<usize>i << 2))));
  let top = max4(m);
  for (; i < n; i++) top = max(top, abs(load<f32>(x + (<usize>i << 2))));
  return top;
}

// 16-bit ones; exported, so that it is loaded (math.as.ts).
export let ONES: v128 = i16x8.splat(1);

// Two stages of butterflies between four vectors, in place.
@inline function butterflies(p: usize): void {
  const a = v128.load(p), b = v128.load(p, 16), c = v128.load(p, 32), d = v128.load(p, 48);
  const e = f32x4.add(a, b), f = f32x4.sub(a, b), g = f32x4.add(c, d), h = f32x4.sub(c, d);
  v128.store(p, f32x4.add(e, g)); v128.store(p, f32x4.add(f, h), 16);
  v128.store(p, f32x4.sub(e, g), 32); v128.store(p, f32x4.sub(f, h), 48);
}

@inline function butterfly(p: usize, q: usize): void {
  const a = v128.load(p), b = v128.load(q);
  v128.store(p, f32x4.add(a, b)); v128.store(q, f32x4.sub(a, b));
}

// Copies x[0..n) to out, rotated by Hadamard matrices (without their 1 / sqrt(size)), as large a power of 2 as divides n;
// zeros up to whole 16. Returns the size.
function rotate(x: usize, n: i32, out: usize): i32 {
  const size = n & -n, last = out + (<usize>n << 2);
  memory.copy(out, x, <usize>n << 2);
  for (let p = last; p < out + (<usize>(n + 15 & ~15) << 2); p += 4) store<f32>(p, 0);
  let h: usize = 4;
  if (size >= 16) {
    for (let p = out; p < last; p += 64) {
      // 1 and 2 apart, then 4 and 8.
      transpose(v128.load(p), v128.load(p, 16), v128.load(p, 32), v128.load(p, 48), p);
      butterflies(p);
      transpose(v128.load(p), v128.load(p, 16), v128.load(p, 32), v128.load(p, 48), p);
      butterflies(p);
    }
    h = 64;
  }
  for (; h < <usize>size << 2; h <<= 1) {
    for (let p = out; p < last; p += h << 1) {
      if (h >= 16) {
        for (let q = p; q < p + h; q += 16) butterfly(q, q + h);
      } else {
        for (let q = p; q < p + h; q += 4) {
          const a = load<f32>(q), b = load<f32>(q + h);
          store<f32>(q, a + b); store<f32>(q + h, a - b);
        }
      }
    }
  }
  return size;
}

// 2^x for x <= 0 to 4e-6, for weights that are rounded to codes anyway; 2^-126 below that. Constants are the caller's locals.
export let ROUGH_P3: v128 = f32x4.splat(0.009582869804191875);
export let ROUGH_P2: v128 = f32x4.splat(0.05590646821571504);
export let ROUGH_P1: v128 = f32x4.splat(0.24024098587177456);
export let ROUGH_P0: v128 = f32x4.splat(0.6931241884332238);
@inline function exp2_rough(v: v128, low: v128, p3: v128, p2: v128, p1: v128, p0: v128, one: v128): v128 {
  const x = f32x4.pmax(v, low), n = f32x4.nearest(x), r = f32x4.sub(x, n);
  let p = f32x4.relaxed_madd(p3, r, p2);
  p = f32x4.relaxed_madd(p, r, p1);
  p = f32x4.relaxed_madd(p, r, p0);
  p = f32x4.relaxed_madd(p, r, one);
  return i32x4.add(p, i32x4.shl(i32x4.relaxed_trunc_f32x4_s(n), 23));
}

// 16 codes of the floats at p.
@inline function codes4(p: usize, k: v128): v128 {
  return i32x4.relaxed_trunc_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(p), k)));
}
@inline function codes16(p: usize, k: v128): v128 {
  return i8x16.narrow_i16x8_s(
    i16x8.narrow_i32x4_s(codes4(p, k), codes4(p + 16, k)),
    i16x8.narrow_i32x4_s(codes4(p + 32, k), codes4(p + 48, k)),
  );
}

// Up to four steps of four codes, stride apart.
@inline function store_steps(out: usize, stride: usize, codes: v128, steps: i32): void {
  v128.store32_lane(out, codes, 0);
  if (steps > 1) v128.store32_lane(out + stride, codes, 1);
  if (steps > 2) v128.store32_lane(out + 2 * stride, codes, 2);
  if (steps > 3) v128.store32_lane(out + 3 * stride, codes, 3);
}

// Less than any score, but finite: differences are no NaN.
const LOWEST: f32 = -1e30;

@inline function clear(record: usize, width: i32): void {
  memory.fill(record, 0, (<usize>width << 2) + 16);
  store<f32>(record, LOWEST);
}

@inline function finish(record: usize, headDim: i32, out: usize): void {
  const sum = load<f32>(record, 4), k = f32x4.splat(sum > 0 ? 1 / sum : 0);
  for (let d = 0; d < headDim; d += 4) {
    const o = <usize>d << 2;
    store_dims(out + o, f32x4.mul(v128.load(record + o, 16), k), headDim - d);
  }
}

@inline function first_visible(to: i32, window: i32): i32 { return window > 0 && to > window ? to - window : 0; }

export function attention_merge(parts: usize, maxParts: i32, out: usize, outStride: i32, itemBegin: i32, itemEnd: i32, contexts: usize, heads: i32, headDim: i32, window: i32, scratch: usize): void {
  const width = (headDim + 7) & ~7, recordBytes = (<usize>width << 2) + 16;
  for (let item = itemBegin; item < itemEnd; item++) {
    const row = item / heads, head = item % heads;
    const to = load<i32>(contexts + (<usize>row << 2)), from = first_visible(to, window);
    const records = parts + <usize>(item * maxParts) * recordBytes;
    clear(scratch, width);
    for (let p = from / ${PART_TOKENS}; p * ${PART_TOKENS} < to; p++) join(scratch, records + <usize>p * recordBytes, width);
    finish(scratch, headDim, out + (<usize>row * outStride + <usize>(head * headDim) << 2));
  }
}
`;

function entry(format: KvFormat): string {
  const { elementBytes, together, headerBytes } = KV_LAYOUTS[format];
  const pieces = `
  const width = (headDim + 7) & ~7, steps = (headDim + ${together - 1}) / ${together};
  const kBytes = <usize>steps * ${16 * together * elementBytes} + ${headerBytes.k}, vBytes = <usize>width * ${
    16 * elementBytes
  } + ${headerBytes.v};
  const kBlock = kBytes * kvHeads, vBlock = vBytes * kvHeads;`;
  return `
export function kv_write(k: usize, kStride: i32, v: usize, vStride: i32, rows: i32, kvHeads: i32, headDim: i32, slots: usize, kPool: usize, vPool: usize, scratch: usize): void {${pieces}
  for (let r = 0; r < rows; r++) {
    const slot = load<i32>(slots + (<usize>r << 2)), at = slot & 15;
    let kPiece = kPool + <usize>(slot >> 4) * kBlock, vPiece = vPool + <usize>(slot >> 4) * vBlock;
    let kRow = k + (<usize>r * kStride << 2), vRow = v + (<usize>r * vStride << 2);
    for (let h = 0; h < kvHeads; h++) {
      write_k(kRow, headDim, kPiece, at, scratch);
      write_v(vRow, headDim, vPiece, at);
      kRow += <usize>headDim << 2; vRow += <usize>headDim << 2; kPiece += kBytes; vPiece += vBytes;
    }
  }
}

export function attention(q: usize, qStride: i32, out: usize, outStride: i32, row: i32, rows: i32, kvHeadBegin: i32, kvHeadEnd: i32, contexts: usize, tables: usize, kPool: usize, vPool: usize, kvHeads: i32, groupSize: i32, headDim: i32, scale: f32, window: i32, softCap: f32, scratch: usize, partBegin: i32, partEnd: i32, parts: usize, maxParts: i32): void {${pieces}
  const headBytes = <usize>headDim << 2, recordBytes = (<usize>width << 2) + ${RECORD_HEADER};
  const queries = rows * groupSize, groups = (queries + 3) >> 2, groupBytes = <usize>steps << 4;
  const prepared = scratch, s = prepared + groups * groupBytes, weights = s + ${4 * SCORE_BYTES};
  const scales = weights + ${4 * SCORE_BYTES}, spans = scales + (<usize>groups << 4);
  const states = spans + (<usize>groups << 5), totals = states + queries * recordBytes;
  const table = <usize>load<u32>(tables + (<usize>row << 2));
  let from = i32.MAX_VALUE, to = 0;
  for (let i = 0; i < queries; i++) {
    const last = load<i32>(contexts + (<usize>(row + i / groupSize) << 2)), first = first_visible(last, window);
    const span = spans + (<usize>i << 3);
    store<i32>(span, first); store<i32>(span, last, 4);
    from = min(from, first); to = max(to, last);
  }
  from &= -16;
  const begin = parts ? partBegin : from / ${PART_TOKENS}, end = parts ? partEnd : (to + ${PART_TOKENS - 1}) / ${PART_TOKENS};
  for (let kvHead = kvHeadBegin; kvHead < kvHeadEnd; kvHead++) {
    const k = kPool + kvHead * kBytes, v = vPool + kvHead * vBytes, head = kvHead * groupSize;
    for (let i = 0; i < queries; i++) {
      const r = row + i / groupSize, alone = i == queries - 1 && (i & 3) == 0;
      const from = q + (<usize>r * qStride << 2) + <usize>(head + i % groupSize) * headBytes;
      const to = prepared + (i >> 2) * groupBytes + (<usize>(i & 3) << 2);
      prepare(from, headDim, scale * LOG2E, to, alone ? 4 : 16, scales + (<usize>i << 2), states);
      if (end - begin != 1) clear(totals + i * recordBytes, width);
    }
    for (let p = begin; p < end; p++) {
      for (let i = 0; i < queries; i++) clear(states + i * recordBytes, width);
      const stop = min((p + 1) * ${PART_TOKENS}, to);
      for (let j = max(p * ${PART_TOKENS}, from); j < stop;) {
        const next = min(stop, (j | ${ATTENTION_CHUNK - 1}) + 1);
        for (let i = 0; i < queries; i += 4) {
          const a = prepared + (i >> 2) * groupBytes, b = scales + (<usize>i << 2), c = spans + (<usize>i << 3), state = states + i * recordBytes;
          const n = min(queries - i, 4);
${
    lines(
      [...QUERIES].reverse().map((n) =>
        `          ${n < 4 ? "else " : ""}${n > 1 ? `if (n == ${n}) ` : ""}chunk_${format}_${n}(a, b, c, table, j, next, k, kBlock, v, vBlock, steps, width, s, weights, state, softCap * LOG2E);`
      ),
    )
  }
        }
        j = next;
      }
      for (let i = 0; i < queries; i++) {
        const state = states + i * recordBytes;
        if (!parts) { if (end - begin > 1) join(totals + i * recordBytes, state, width); continue; }
        const item = (row + i / groupSize) * kvHeads * groupSize + head + i % groupSize;
        memory.copy(parts + <usize>(item * maxParts + p) * recordBytes, state, recordBytes);
      }
    }
    if (parts) continue;
    for (let i = 0; i < queries; i++) {
      finish((end - begin > 1 ? totals : states) + i * recordBytes, headDim, out + (<usize>(row + i / groupSize) * outStride << 2) + <usize>(head + i % groupSize) * headBytes);
    }
  }
}
`;
}

/** AssemblyScript source of the attention module of a KV format; math.as.ts stands before it. */
export function attentionSource(format: KvFormat): string {
  const kind = KV_LAYOUTS[format].headerBytes.v > 0 ? "codes" : "floats";
  const perQueries = QUERIES.map((queries) => {
    const mixes = [...new Set([VECTORS[queries], 2])].map((vectors) => mix(format, queries, vectors));
    return scores(format, queries) + mixes.join("") + chunk(format, queries);
  });
  return SHARED + ARRANGE[kind] + PREPARE[kind] + WRITE[format] + soften(format) + perQueries.join("") + entry(format);
}
