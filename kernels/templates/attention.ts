/**
 * AssemblyScript source of paged attention (abi.ts: `kv_write`, `attention`): scores of a KV block for several query
 * heads at once, softmax over the visible tokens, then the weighted sum of V.
 *
 * Heads that share a KV head are taken up to four together, so K and V are read once for them. Register budget (15
 * usable v128 registers on x64): heads x vectors accumulators, the vectors themselves and one spread value.
 */

/** Vectors of 4 tokens (scores) or 4 dims (mix) taken together, by number of heads. */
const VECTORS: Record<number, number> = { 1: 4, 2: 4, 3: 2, 4: 2 };
/** Dims (scores) or tokens (mix) a step, as many as floats in a vector. */
const UNROLL = 4;

/** Tokens whose V stays in the first-level cache while the dims pass over it. */
const MIX_TOKENS = 64;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const lines = (parts: string[]): string => parts.join("\n");

/** `acc[h][v] += vector[v] * spread[h]` for one dim (scores) or token (mix). */
function step(
  heads: number,
  vectors: number,
  load: (v: number) => string,
  spread: (h: number) => string,
): string {
  return lines([
    ...range(vectors).map((v) => `        m${v} = ${load(v)};`),
    ...range(heads).flatMap((h) => [
      `        t = ${spread(h)};`,
      ...range(vectors).map((v) => `        a${h}_${v} = f32x4.relaxed_madd(m${v}, t, a${h}_${v});`),
    ]),
  ]);
}

/** Four values a head with one load: every load costs a bounds check besides (scores and mix together -20 % time). */
const loadFour = (heads: number, pointer: string): string =>
  lines(range(heads).map((h) => `        s${h} = v128.load(${pointer}${h});`));
const SPREAD = range(4).map((i) => range(16).map((byte) => 4 * i + byte % 4).join(", "));
const fromFour = (i: number) => (h: number): string => `i8x16.shuffle(s${h}, s${h}, ${SPREAD[i]})`;

const locals = (heads: number, vectors: number): string =>
  [...range(vectors).map((v) => `m${v} = zero`), ...range(heads).map((h) => `s${h} = zero`), "t = zero"].join(", ");
const accumulators = (heads: number, vectors: number): string =>
  range(heads).flatMap((h) => range(vectors).map((v) => `a${h}_${v} = zero`)).join(", ");

/** Scores of one KV block's 16 tokens: K is [headDim][16]. */
function scores(heads: number): string {
  const vectors = VECTORS[heads];
  const one = (i: number, spread: (h: number) => string) =>
    step(heads, vectors, (v) => `v128.load(p, ${64 * i + 16 * v})`, spread);
  const pointers = range(heads).map((h) => `u${h} = q + ${h} * headBytes`).join(", ");
  const advance = (n: number) => range(heads).map((h) => `u${h} += ${4 * n};`).join(" ");
  return `
@inline function scores_h${heads}(q: usize, headBytes: usize, k: usize, headDim: i32, scale: v128, out: usize, outBytes: usize): void {
  const zero = f32x4.splat(0);
  for (let half: usize = 0; half < 64; half += ${16 * vectors}) {
    let p = k + half, d = headDim, ${pointers};
    let ${accumulators(heads, vectors)}, ${locals(heads, vectors)};
    for (; d >= ${UNROLL}; d -= ${UNROLL}) {
${loadFour(heads, "u")}
${lines(range(UNROLL).map((i) => one(i, fromFour(i))))}
      p += ${64 * UNROLL}; ${advance(UNROLL)}
    }
    for (; d > 0; d--) {
${one(0, (h) => `v128.load32_splat(u${h})`)}
      p += 64; ${advance(1)}
    }
${
    lines(range(heads).flatMap((h) =>
      range(vectors).map((v) => `    v128.store(out + ${h} * outBytes + half, f32x4.mul(a${h}_${v}, scale), ${16 * v});`)
    ))
  }
  }
}
`;
}

/** Sum over the visible tokens of weight x V for `vectors` x 4 dims from byte `at` on; V is [16][vStride]. */
function mix(heads: number, vectors: number): string {
  const one = (i: number, spread: (h: number) => string) =>
    step(heads, vectors, (v) => `v128.load(p${i ? ` + ${i} * vBytes` : ""}, ${16 * v})`, spread);
  const advance = (n: number) => range(heads).map((h) => `w${h} += ${4 * n};`).join(" ");
  const pointers = range(heads).map((h) => `w${h} = weights + ${h} * weightBytes + (<usize>from << 2)`).join(", ");
  return `
@inline function mix_h${heads}v${vectors}(weights: usize, weightBytes: usize, table: usize, from: i32, to: i32, vHead: usize, poolBytes: usize, vBytes: usize, at: usize, dims: i32, out: usize, headBytes: usize, more: bool): void {
  const zero = f32x4.splat(0);
  let ${accumulators(heads, vectors)}, ${locals(heads, vectors)}, ${pointers};
  if (more) {
${
    lines(range(heads).flatMap((h) =>
      range(vectors).map((v) =>
        `    a${h}_${v} = load_dims(out + ${h} * headBytes + at + ${16 * v}, dims - ${4 * v});`
      )
    ))
  }
  }
  for (let j = from; j < to;) {
    const end = min(to, (j | 15) + 1);
    let p = vHead + <usize>load<i32>(table + (<usize>(j >> 4) << 2)) * poolBytes + <usize>(j & 15) * vBytes + at;
    for (; j + ${UNROLL} <= end; j += ${UNROLL}) {
${loadFour(heads, "w")}
${lines(range(UNROLL).map((i) => one(i, fromFour(i))))}
      p += ${UNROLL} * vBytes; ${advance(UNROLL)}
    }
    for (; j < end; j++) {
${one(0, (h) => `v128.load32_splat(w${h})`)}
      p += vBytes; ${advance(1)}
    }
  }
${
    lines(range(heads).flatMap((h) =>
      range(vectors).map((v) =>
        `  store_dims(out + ${h} * headBytes + at + ${16 * v}, a${h}_${v}, dims - ${4 * v});`
      )
    ))
  }
}
`;
}

/** All of `heads` query heads of one row and KV head. */
function headsOf(heads: number): string {
  const vectors = VECTORS[heads];
  const mixArguments =
    "scratch, rowBytes, table, j, next, vHead, vBlock, vBytes, <usize>d << 2, headDim - d, out, headBytes, j > from";
  return `
function heads_${heads}(q: usize, out: usize, table: usize, from: i32, to: i32, kHead: usize, kBlock: usize, vHead: usize, vBlock: usize, headDim: i32, scale: f32, scratch: usize): void {
  const headBytes = <usize>headDim << 2, vBytes = <usize>((headDim + 3) & ~3) << 2;
  const begin = from >> 4, end = (to + 15) >> 4, rowBytes = <usize>end << 6, scale4 = f32x4.splat(scale);
  for (let b = begin; b < end; b++) {
    const k = kHead + <usize>load<i32>(table + (<usize>b << 2)) * kBlock;
    scores_h${heads}(q, headBytes, k, headDim, scale4, scratch + (<usize>b << 6), rowBytes);
  }
${lines(range(heads).map((h) => `  softmax(scratch + ${h} * rowBytes, begin, end, from, to);`))}
  for (let j = from; j < to;) {
    const next = min(to, (j | ${MIX_TOKENS - 1}) + 1);
    let d = 0;
    for (; d + ${4 * vectors} <= headDim; d += ${4 * vectors}) mix_h${heads}v${vectors}(${mixArguments});
    for (; d < headDim; d += 4) mix_h${heads}v1(${mixArguments});
    j = next;
  }
}
`;
}

const SHARED = `
@inline function store_dims(out: usize, v: v128, dims: i32): void {
  if (dims >= 4) { v128.store(out, v); return; }
  store<f32>(out, f32x4.extract_lane(v, 0));
  if (dims > 1) store<f32>(out, f32x4.extract_lane(v, 1), 4);
  if (dims > 2) store<f32>(out, f32x4.extract_lane(v, 2), 8);
}

@inline function load_dims(out: usize, dims: i32): v128 {
  if (dims >= 4) return v128.load(out);
  let v = v128.load32_zero(out);
  if (dims > 1) v = v128.load32_lane(out, v, 1, 4);
  if (dims > 2) v = v128.load32_lane(out, v, 2, 8);
  return v;
}

// Softmax of the scores of blocks begin..end-1 in place, 0 outside from..to-1.
function softmax(p: usize, begin: i32, end: i32, from: i32, to: i32): void {
  for (let j = begin << 4; j < from; j++) store<f32>(p + (<usize>j << 2), -Infinity);
  for (let j = to; j < end << 4; j++) store<f32>(p + (<usize>j << 2), -Infinity);
  const first = p + (<usize>begin << 6), last = p + (<usize>end << 6);
  let m = f32x4.splat(-Infinity);
  for (let a = first; a < last; a += 32) m = f32x4.pmax(m, f32x4.pmax(v128.load(a), v128.load(a, 16)));
  const top = f32x4.splat(max4(m));
  let s = f32x4.splat(0), u = s;
  for (let a = first; a < last; a += 32) {
    const e = exp4(f32x4.sub(v128.load(a), top)), g = exp4(f32x4.sub(v128.load(a, 16), top));
    v128.store(a, e); v128.store(a, g, 16);
    s = f32x4.add(s, e); u = f32x4.add(u, g);
  }
  const sum = sum4(f32x4.add(s, u));
  const inverse = f32x4.splat(sum > 0 ? 1 / sum : 0);
  for (let a = first; a < last; a += 32) {
    v128.store(a, f32x4.mul(v128.load(a), inverse));
    v128.store(a, f32x4.mul(v128.load(a, 16), inverse), 16);
  }
}
`;

const EXPORTS = `
export function kv_write(k: usize, kStride: i32, v: usize, vStride: i32, rows: i32, kvHeads: i32, headDim: i32, slots: usize, kPool: usize, vPool: usize): void {
  const padded = (headDim + 3) & ~3, headBytes = <usize>headDim << 2;
  for (let r = 0; r < rows; r++) {
    const slot = load<i32>(slots + (<usize>r << 2)), at = slot & 15;
    const head = <usize>(slot >> 4) * kvHeads;
    let from = k + (<usize>r * kStride << 2), p = kPool + (head * headDim << 6) + (<usize>at << 2);
    for (let i = kvHeads * headDim; i > 0; i--, from += 4, p += 64) store<f32>(p, load<f32>(from));
    from = v + (<usize>r * vStride << 2);
    for (let h = 0; h < kvHeads; h++, from += headBytes) {
      p = vPool + (((head + h) << 4) + at) * (<usize>padded << 2);
      memory.copy(p, from, headBytes);
      for (let d = headDim; d < padded; d++) store<f32>(p + (<usize>d << 2), 0);
    }
  }
}

export function attention(q: usize, qStride: i32, out: usize, outStride: i32, itemBegin: i32, itemEnd: i32, contexts: usize, tables: usize, kPool: usize, vPool: usize, kvHeads: i32, groupSize: i32, headDim: i32, scale: f32, window: i32, scratch: usize): void {
  const headBytes = <usize>headDim << 2;
  const kBytes = <usize>headDim << 6, vBytes = <usize>((headDim + 3) & ~3) << 6;
  const kBlock = kBytes * kvHeads, vBlock = vBytes * kvHeads;
  for (let item = itemBegin; item < itemEnd; item++) {
    const row = item / kvHeads, kvHead = item % kvHeads;
    const to = load<i32>(contexts + (<usize>row << 2)), table = <usize>load<u32>(tables + (<usize>row << 2));
    const from = window > 0 && to > window ? to - window : 0;
    const k = kPool + kvHead * kBytes, v = vPool + kvHead * vBytes;
    let a = q + (<usize>row * qStride << 2) + kvHead * groupSize * headBytes;
    let o = out + (<usize>row * outStride << 2) + kvHead * groupSize * headBytes;
    for (let left = groupSize; left > 0;) {
      const n = min(left, 4);
      if (n == 4) heads_4(a, o, table, from, to, k, kBlock, v, vBlock, headDim, scale, scratch);
      else if (n == 3) heads_3(a, o, table, from, to, k, kBlock, v, vBlock, headDim, scale, scratch);
      else if (n == 2) heads_2(a, o, table, from, to, k, kBlock, v, vBlock, headDim, scale, scratch);
      else heads_1(a, o, table, from, to, k, kBlock, v, vBlock, headDim, scale, scratch);
      left -= n; a += n * headBytes; o += n * headBytes;
    }
  }
}
`;

/** AssemblyScript source of the attention part of the base module. */
export function attentionSource(): string {
  const perHeads = range(4).map((i) => i + 1).map((heads) => {
    const mixes = [...new Set([VECTORS[heads], 1])].map((vectors) => mix(heads, vectors));
    return scores(heads) + mixes.join("") + headsOf(heads);
  });
  return SHARED + perHeads.join("") + EXPORTS;
}
