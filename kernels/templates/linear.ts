/**
 * AssemblyScript source of the linear kernels (abi.ts `LinearKernel`) of one weight format: `mv_b1` .. `mv_b8`.
 *
 * What shapes the code (Deno 2.9 / V8 15 on a Zen 5; ratios within one run, 2048 x 2048):
 * - constants come from the table at `consts`: V8 rebuilds v128 constants at every use (+40 %);
 * - both groups of a panel alternate in memory: one stream for the prefetcher and one pointer (layout.ts);
 * - V8 checks the bounds of every load (Deno has no trap handler), so a load costs three instructions: each loaded
 *   activation vector serves two groups of rows (batch 1: q8 +25 %, q4 +12 %, w8q8 +15 %, w8q4 +8 %), and in f32 one load serves four tokens (batch 4: +88 %, batch 8: +47 %);
 * - a body is one chunk of 64 columns: unrolling two brings nothing more; a shorter last chunk of a dense format is a
 *   loop (q8 against 64 padded columns, batch 1 and 8: 52 columns +4 %, +24 %; 36 columns +30 %, +60 %);
 * - 8 accumulators, the decoded vectors and the constants fill the 15 usable registers of x64: no more in a pass.
 * Tried and left out (Zen 4): tiles of 16 tokens (-3 %: passes of 4 tokens share all there is to share); a load some
 * lines ahead of the stream, so that it is there in time (from memory half the speed or less: it confuses the prefetcher);
 * activations of 4 columns by one load and shuffles (q8, batch 1: +7 % in the cache, nothing from memory; batch 4: -3 %).
 * Without the bounds checks (a V8 flag, unsafe) the kernels would run 3 to 12 % faster: what is left is arithmetic.
 * The first operand of a relaxed dot is the signed weight, the second the activation (abi.ts, encodings).
 */

import { CHUNK, HEADER_BYTES, ROWS, WINDOW, windowsChunkBytes, type WindowSlot, windowSlots } from "../layout.ts";
import { TILE_SIZES, type TileSize } from "../abi.ts";
import type { Accumulate, LinearFormat } from "../manifest.ts";

type WindowsFormat = Extract<LinearFormat, { kind: "windows" }>;

/**
 * Tokens of one pass over a pair of groups; a tile of 8 takes two passes. All 8 tokens over single groups decode half
 * as often, but read the activations twice as often: +4 % with 576 columns, -5 to -14 % with 2048 (w8q8, w12q8).
 */
const PASS_TOKENS = 4;

/** Up to 8 vectors of 4-bit codes fit an i16 lane: 8 x 2 x 8 x 255 = 32640. 8-bit codes (63) fit once: 32130. */
const I16_VECTORS = 8;

/** Byte order that puts the lower (higher) four i16 lanes of one vector beside those of another: i16x8 unpack. */
const WIDEN = [0, 8].map((first) =>
  [0, 1, 2, 3].flatMap((lane) => [0, 16].flatMap((v) => [0, 1].map((byte) => v + first + 2 * lane + byte))).join(", ")
);

/** @param argument the format's name for `formatArgument` */
const signature = (argument: string): string =>
  `w: usize, xa: usize, xb: usize, xs: usize, y: usize, yStride: i32, groups: i32, chunks: i32, ${argument}: i32, accumulate: i32, consts: usize`;

const HELPERS = `
// Four bf16 scales to f32.
@inline function scales(p: usize): v128 { return i32x4.shl(v128.load16x4_u(p), 16); }
// Code sums x -offset: pairs (sum, 0) times (-offset, -offset) is one multiply-add; i32x4.mul would be two to three.
@inline function start(p: usize, minusOffset: v128): v128 { return i32x4.dot_i16x8_s(v128.load16x4_u(p), minusOffset); }
`;

const range = (n: number, from = 0): number[] => Array.from({ length: n }, (_, i) => from + i);
const lines = (parts: string[]): string => parts.filter((part) => part !== "").join("\n");

/** A decoded vector of 16 codes of group `u`, and the activations it multiplies in terms of the loaded vector `a`. */
interface Decoded {
  readonly u: number;
  readonly codes: string;
  readonly activations: string;
}

/** Locals are named by group and token: sums f (f32), h (i32), n (i16); by group: weights w, first sums, scales. */
class Pass {
  /** Vectors summed in the i16 lanes since they were last widened. */
  private pending = 0;
  private readonly cells: readonly { u: number; t: number; id: string }[];
  readonly groups: readonly number[];

  constructor(
    readonly batch: number,
    readonly tokens: readonly number[],
    groups: number,
    readonly bits: 4 | 8,
    readonly accumulate: Accumulate,
  ) {
    this.groups = range(groups);
    this.cells = this.groups.flatMap((u) => tokens.map((t) => ({ u, t, id: `${u}_${t}` })));
  }

  each(line: (cell: { u: number; t: number; id: string }) => string): string {
    return lines(this.cells.map(line));
  }

  /** Per group, on one line. */
  eachGroup(line: (u: number) => string): string {
    return "      " + this.groups.map(line).join(" ");
  }

  private get narrow(): boolean {
    return this.bits === 4 && this.accumulate === "i16";
  }

  /** Multiplies one decoded vector a group by the activations of each token, loaded once. */
  products(load: (t: number) => string, decoded: readonly Decoded[]): string {
    const full = this.narrow && this.pending === I16_VECTORS ? [this.widen()] : [];
    const first = this.pending++ === 0;
    const token = (t: number) => [`      a = ${load(t)};`, ...decoded.map((one) => this.product(one, t, first))];
    return lines([...full, ...this.tokens.flatMap(token)]);
  }

  private product({ u, codes, activations }: Decoded, t: number, first: boolean): string {
    const [h, n] = [`h${u}_${t}`, `n${u}_${t}`];
    if (this.accumulate === "i32") {
      return `      ${h} = i32x4.relaxed_dot_i8x16_i7x16_add_s(${codes}, ${activations}, ${h});`;
    }
    const dot = `i16x8.relaxed_dot_i8x16_i7x16_s(${codes}, ${activations})`;
    if (!this.narrow) return `      ${h} = i32x4.add(${h}, i32x4.dot_i16x8_s(${dot}, ones));`;
    return `      ${n} = ${first ? dot : `i16x8.add(${n}, ${dot})`};`;
  }

  /** Moves what the i16 lanes hold to the i32 ones. */
  widen(): string {
    if (!this.narrow || this.pending === 0) return "";
    this.pending = 0;
    return this.each(({ id }) => `      h${id} = i32x4.add(h${id}, i32x4.dot_i16x8_s(n${id}, ones));`);
  }

  /** Locals of products with 8 rows: 4-bit codes keep a sum for each token (m0 ..), 8-bit ones add pairs at once. */
  beginHalves(): string {
    if (this.bits === 4) return `      let ${this.tokens.map((t) => `m${t} = zero`).join(", ")};`;
    return `      let m = zero, k = zero${this.groups.length === 1 ? ", v1 = zero, i1 = zero" : ""};`;
  }

  /**
   * Adds sums over 8 rows, of `vectors` vectors, to the groups' own. With whole slots to come and lanes of 16 bits, each
   * takes the place of a pair's sum there: no widening of its own.
   */
  addRows(vectors: number, wholeFollow: boolean): string {
    const narrow = this.narrow && wholeFollow;
    if (narrow) this.pending = vectors;
    return this.each(({ u, t, id }) => {
      if (narrow) return `      n${id} = i8x16.shuffle(m${t}, zero, ${WIDEN[u]});`;
      return `      h${id} = i32x4.add(h${id}, i32x4.extend_${u === 0 ? "low" : "high"}_i16x8_s(m${t}));`;
    });
  }

  /** Adds the sums over 8 rows m and k, which must not meet in 16 bits, of one token: row by row next to each other. */
  addPairs(t: number): string {
    const sum = (u: number) => `i32x4.dot_i16x8_s(i8x16.shuffle(m, k, ${WIDEN[u]}), ones)`;
    return this.groups.map((u) => `      h${u}_${t} = i32x4.add(h${u}_${t}, ${sum(u)});`).join("\n");
  }

  /** Start of a pass over the activations. */
  begin(locals: (u: number) => string): string {
    return lines([
      "      let p = w, x = xa, z = xb, s = xs, a = zero;",
      this.eachGroup((u) => `let b${u} = zero, ${locals(u)};`),
      this.each(({ id }) => `      let f${id} = zero;`),
    ]);
  }

  /** Start of a run of columns with one scale: its header. */
  header(): string {
    return lines([
      this.eachGroup((u) =>
        `const first${u} = start(p + ${HEADER_BYTES * u}, minusOffset), scale${u} = scales(p + ${HEADER_BYTES * u + 8});`
      ),
      this.each(({ id, u }) => `      let h${id} = first${u}${this.narrow ? `, n${id} = zero` : ""};`),
      this.advance(HEADER_BYTES),
    ]);
  }

  /** Moves on by `bytes` of every group. */
  advance(bytes: number): string {
    return `      p += ${bytes * this.groups.length};`;
  }

  /** End of a run of columns: sums to f32, times the scales of rows and tokens. */
  scaled(): string {
    return lines(this.tokens.flatMap((t) => [
      `      a = v128.load32_splat(s, ${4 * t});`,
      ...this.groups.map((u) =>
        `      f${u}_${t} = f32x4.relaxed_madd(f32x4.mul(f32x4.convert_i32x4_s(h${u}_${t}), scale${u}), a, f${u}_${t});`
      ),
    ]));
  }

  store(): string {
    return this.each(({ u, t, id }) => storeRow(`f${id}`, u, t));
  }
}

const storeRow = (sum: string, u: number, t: number): string =>
  `      { const o = y + ${t} * yRow; v128.store(o, accumulate ? f32x4.add(${sum}, v128.load(o, ${16 * u})) : ${sum}, ${16 * u}); }`;

const denseChunkBytes = (bits: 4 | 8): number => CHUNK * ROWS * bits / 8;

/**
 * One pass of a dense format: 4 columns of a token, spread to the 4 rows, a vector of codes. A last chunk with fewer
 * than all its vectors (`tail`) takes them by windows of 16 columns, then one by one.
 */
function densePass(bits: 4 | 8, pass: Pass): string {
  const { batch } = pass;
  const decode = (u: number, k: number): string => {
    const at = (vector: number) => 16 * (vector * pass.groups.length + u);
    if (bits === 8) return `v${u} = v128.load(p, ${at(k)});`;
    if (k % 2) return `v${u} = i8x16.relaxed_swizzle(codebook, v128.and(i16x8.shr_u(b${u}, 4), nibble));`;
    return `b${u} = v128.load(p, ${at(k >> 1)}); v${u} = i8x16.relaxed_swizzle(codebook, v128.and(b${u}, nibble));`;
  };
  const vector = (k: number): string => {
    const decoded = pass.groups.map((u) => ({ u, codes: `v${u}`, activations: "a" }));
    const load = (t: number) => `v128.load32_splat(x, ${((k >> 2) * batch + t) * 16 + 4 * (k & 3)})`;
    return lines([pass.eachGroup((u) => decode(u, k)), pass.products(load, decoded)]);
  };
  const columns = 32 / bits;
  const inWindow = WINDOW / columns, inChunk = CHUNK / columns;
  const stored = (vectors: number): string =>
    lines([
      ...range(vectors * columns / 4).map(vector),
      pass.widen(),
      pass.advance(16 * vectors),
    ]);
  return lines([
    pass.begin((u) => `v${u} = zero`),
    `    for (let c = tail < ${inChunk} ? 1 : 0; c < chunks; c++) {`,
    pass.header(),
    stored(inChunk),
    pass.scaled(),
    `      x += ${CHUNK * batch}; s += ${4 * batch};`,
    "    }",
    `    if (tail < ${inChunk}) {`,
    pass.header(),
    "      let k = tail;",
    `      for (; k >= ${inWindow}; k -= ${inWindow}) {`,
    stored(inWindow),
    `      x += ${WINDOW * batch};`,
    "      }",
    "      for (; k > 0; k--) {",
    stored(1),
    `      x += ${columns};`,
    "      }",
    pass.scaled(),
    "    }",
    pass.store(),
  ]);
}

/** Decodes slot `k` of group `u`, taken in order from byte `from` of the chunk on, into locals v (codes) and i (indices). */
function decodeSlot(bits: 4 | 8, at: { groups: number; from: number; count: number }, u: number, k: number): string {
  const { groups, from, count } = at;
  const [v, i, b] = [`v${u}`, `i${u}`, `b${u}`];
  if (bits === 4) return decode4(`v128.load(p, ${from + 16 * (k * groups + u)})`, u);
  const pair = from + (k >> 1) * 48 * groups + u * ((k | 1) < count ? 48 : 32);
  const values = `${v} = v128.load(p, ${pair + 16 + 16 * (k & 1)});`;
  // The even slot of a pair loads the indices of both.
  if (k % 2) return `${i} = v128.and(i16x8.shr_u(${b}, 4), nibble); ${values}`;
  return `${b} = v128.load(p, ${pair}); ${i} = v128.and(${b}, nibble); ${values}`;
}

const decode4 = (load: string, u: number): string =>
  `b${u} = ${load}; v${u} = i8x16.relaxed_swizzle(codebook, v128.and(b${u}, nibble)); i${u} = v128.and(i16x8.shr_u(b${u}, 4), nibble);`;

/** The activations of a slot's window for token `t`. */
type LoadWindow = (t: number) => string;

/** The halves of a chunk: a vector holds both groups' (of a single group half a vector), its products are the sums of 8 rows. */
function halvesOfChunk(bits: 4 | 8, pass: Pass, halves: readonly LoadWindow[], whole: boolean): string {
  const groups = pass.groups.length, size = 8 * groups;
  const load = (vector: number) => `v128.load${groups === 1 ? "64_zero" : ""}(p, ${vector * size})`;
  const dot = (from: string, u: number) =>
    `i16x8.relaxed_dot_i8x16_i7x16_s(v${u}, i8x16.relaxed_swizzle(${from}, i${u}))`;
  if (bits === 4) {
    return lines([
      ...halves.flatMap((window, k) => [
        `      ${decode4(load(k), 0)}`,
        ...pass.tokens.map((t) =>
          `      m${t} = ${k ? `i16x8.add(m${t}, ` : ""}${dot(window(t), 0)}${k ? ")" : ""};`
        ),
      ]),
      pass.addRows(halves.length, whole),
    ]);
  }
  return lines(range(halves.length / 2).flatMap((pair) => [
    `      b0 = ${load(3 * pair)}; i0 = v128.and(b0, nibble); i1 = v128.and(i16x8.shr_u(b0, 4), nibble);`,
    `      v0 = ${load(3 * pair + 1)}; v1 = ${load(3 * pair + 2)};`,
    ...pass.tokens.map((t) =>
      `      m = ${dot(halves[2 * pair](t), 0)}; k = ${dot(halves[2 * pair + 1](t), 1)};\n` + pass.addPairs(t)
    ),
  ]));
}

function windowsPass(format: WindowsFormat, pass: Pass): string {
  const { bits } = format;
  const { batch } = pass;
  const load = ({ view, window }: WindowSlot): LoadWindow => (t) =>
    `v128.load(${view === "A" ? "x" : "z"}, ${(window * batch + t) * 16})`;
  const slots = windowSlots(format);
  const halves = slots.filter(({ entries }) => entries === 2).map(load);
  const whole = slots.filter(({ entries }) => entries === 4).map(load);
  const groups = pass.groups.length, from = halves.length * (bits === 4 ? 8 : 12) * groups;
  const slot = (window: LoadWindow, k: number): string => {
    const decoded = pass.groups.map((u) => ({ u, codes: `v${u}`, activations: `i8x16.relaxed_swizzle(a, i${u})` }));
    return lines([
      pass.eachGroup((u) => decodeSlot(bits, { groups, from, count: whole.length }, u, k)),
      pass.products(window, decoded),
    ]);
  };
  return lines([
    pass.begin((u) => `v${u} = zero, i${u} = zero`),
    halves.length === 0 ? "" : pass.beginHalves(),
    "    for (let left = chunks; left > 0;) {",
    "      const n = min(left, blockChunks);",
    "      left -= n;",
    pass.header(),
    "      for (let c = n; c > 0; c--) {",
    halves.length === 0 ? "" : halvesOfChunk(bits, pass, halves, whole.length > 0),
    ...whole.map(slot),
    pass.widen(),
    pass.advance(windowsChunkBytes(format)),
    `      x += ${CHUNK * batch}; z += ${CHUNK * batch};`,
    "      }",
    pass.scaled(),
    `      s += n * ${4 * batch};`,
    "    }",
    pass.store(),
  ]);
}

/** A kernel: passes over panels (two groups, one stream: layout.ts), then over an odd last group. */
function kernel(
  batch: TileSize,
  { argument, groupBytes }: { readonly argument: string; readonly groupBytes: string },
  passes: (groups: number) => string[],
): string {
  const step = (groups: number) =>
    lines([
      ...passes(groups).map((pass) => `    {\n${pass}\n    }`),
      `    w += ${groups > 1 ? `${groups} * ` : ""}groupBytes; y += ${16 * groups};`,
    ]);
  return `
export function mv_b${batch}(${signature(argument)}): void {
  const codebook = v128.load(consts), nibble = v128.load(consts, 16), zero = v128.load(consts, 32);
  const ones = v128.load(consts, 48), minusOffset = v128.load(consts, 64);
  const yRow = <usize>yStride << 2, groupBytes = <usize>(${groupBytes});
  let g = 1;
  for (; g < groups; g += 2) {
${step(2)}
  }
  if (g === groups) {
${step(1)}
  }
}
`;
}

/** The tokens of a tile, as many at a time as a pass takes. */
const tokenRuns = (batch: TileSize): number[][] => {
  const tokens = Math.min(PASS_TOKENS, batch);
  return range(batch / tokens).map((p) => range(tokens, p * tokens));
};

function quantized(format: Exclude<LinearFormat, { kind: "f32" }>, batch: TileSize, accumulate: Accumulate): string {
  if (format.kind === "windows") {
    const { bits } = format;
    const blocks = "(chunks + blockChunks - 1) / blockChunks";
    const groupBytes = `${blocks} * ${HEADER_BYTES} + chunks * ${windowsChunkBytes(format)}`;
    return kernel(batch, { argument: "blockChunks", groupBytes }, (groups) =>
      tokenRuns(batch).map((tokens) => windowsPass(format, new Pass(batch, tokens, groups, bits, accumulate))));
  }
  const bits = format.kind === "q8" ? 8 : 4;
  const chunkBytes = denseChunkBytes(bits);
  const groupBytes = `chunks * ${HEADER_BYTES + chunkBytes} - ${chunkBytes} + (tail << 4)`;
  return kernel(batch, { argument: "tail", groupBytes }, (groups) =>
    tokenRuns(batch).map((tokens) => densePass(bits, new Pass(batch, tokens, groups, bits, accumulate))));
}

/** Byte order that spreads the i-th float of a vector. */
const SPREAD = range(4).map((i) => range(16).map((byte) => 4 * i + byte % 4).join(", "));

/** One pass in f32 over some groups of a panel: rows in lanes, x spread. Few cells take several sums each: a multiply-add has 4 cycles of latency. */
function floatPass(batch: number, groups: readonly number[], panel: number): string {
  const chains = Math.max(1, Math.floor(4 / (batch * groups.length)));
  const cells = groups.flatMap((u) => range(batch).map((t) => ({ u, t, sums: range(chains).map((c) => `f${u}_${t}_${c}`) })));
  const spread = (c: number, t: number): string => {
    if (batch < 4) return `      a = v128.load32_splat(x, ${4 * (c * batch + t)});`;
    return `${t % 4 === 0 ? `      b = v128.load(x, ${4 * (c * batch + t)});` : ""} a = i8x16.shuffle(b, b, ${SPREAD[t % 4]});`;
  };
  const column = (c: number): string =>
    lines([
      ...groups.map((u) => `      v${u} = v128.load(p, ${16 * (c * panel + u)});`),
      ...range(batch).flatMap((t) => [
        spread(c, t),
        ...groups.map((u) => {
          const sum = `f${u}_${t}_${c % chains}`;
          return `      ${sum} = f32x4.relaxed_madd(v${u}, a, ${sum});`;
        }),
      ]),
    ]);
  const advance = (columns: number) => `      p += ${16 * panel * columns}; x += ${4 * batch * columns};`;
  return `
    let p = w, x = xa, a = zero, b = zero, c = chunks;
    let ${groups.map((u) => `v${u} = zero`).join(", ")};
    let ${cells.flatMap(({ sums }) => sums).map((sum) => `${sum} = zero`).join(", ")};
    for (; c >= 8; c -= 8) {
${lines(range(8).map(column))}
${advance(8)}
    }
    for (; c > 0; c--) {
${column(0)}
${advance(1)}
    }
${lines(cells.map(({ u, t, sums }) => storeRow(sums.reduce((p, q) => `f32x4.add(${p}, ${q})`), u, t)))}`;
}

/** All 8 tokens leave no accumulators for a second group: a panel takes two passes over all of them (two passes of 4 over both groups: -20 %). */
const float = (batch: TileSize): string =>
  kernel(batch, { argument: "unused", groupBytes: "chunks << 4" }, (groups) =>
    (batch === 8 ? range(groups).map((u) => [u]) : [range(groups)]).map((some) => floatPass(batch, some, groups)));

/** AssemblyScript source of the module of `format`. */
export function linearSource(format: LinearFormat, accumulate: Accumulate): string {
  const one = (batch: TileSize) => format.kind === "f32" ? float(batch) : quantized(format, batch, accumulate);
  return HELPERS + [...TILE_SIZES].reverse().map(one).join("");
}
