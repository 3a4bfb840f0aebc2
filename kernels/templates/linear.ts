/**
 * AssemblyScript source of the linear kernels (abi.ts `LinearKernel`) of one weight format: `mv_b1` .. `mv_b8`.
 *
 * What shapes the code (Deno 2.9 / V8 15):
 * - constants come from the table at `consts`: V8 rebuilds v128 constants at every use (+40 %);
 * - a body is unrolled over 64 columns: v128 locals carried by a loop are spilled at its header;
 * - the first operand of a relaxed dot is the signed weight, the second the activation (see abi.ts, encodings).
 */

import { CHUNK, HEADER_BYTES, ROWS, windowSlots } from "../layout.ts";
import { TILE_SIZES } from "../abi.ts";
import type { Accumulate, LinearFormat } from "../manifest.ts";




/** Up to 8 vectors of 4-bit codes fit an i16 lane: 8 x 2 x 8 x 255 = 32640. 8-bit codes (63) fit once: 32130. */
const I16_VECTORS = { 4: 8, 8: 1 } as const;

const SIGNATURE =
  "w: usize, xa: usize, xb: usize, xs: usize, y: usize, yStride: i32, groups: i32, chunks: i32, blockChunks: i32, accumulate: i32, consts: usize";

const HELPERS = `
// Four bf16 scales to f32.
@inline function scales(p: usize): v128 { return i32x4.shl(v128.load16x4_u(p), 16); }
// Code sums x -offset: pairs (sum, 0) times (-offset, -offset) is one multiply-add; i32x4.mul would be two to three.
@inline function start(p: usize, minusOffset: v128): v128 { return i32x4.dot_i16x8_s(v128.load16x4_u(p), minusOffset); }
`;

const CONSTANTS = `
  const codebook = v128.load(consts), nibble = v128.load(consts, 16), zero = v128.load(consts, 32);
  const ones = v128.load(consts, 48), minusOffset = v128.load(consts, 64);
  const yRow = <usize>yStride << 2;`;

const each = (batch: number, line: (t: number) => string): string =>
  Array.from({ length: batch }, (_, t) => line(t)).join("\n");

const storeRows = (batch: number): string =>
  each(batch, (t) =>
    `    { const o = y + ${t} * yRow; v128.store(o, accumulate ? f32x4.add(f${t}, v128.load(o)) : f${t}); }`) +
  "\n    y += 16;";

/** One vector of 16 products a token into the accumulators; `x(t)` is the expression of the activations. */
class Products {
  private pending = 0;
  constructor(readonly batch: number, readonly bits: 4 | 8, readonly accumulate: Accumulate) {}

  add(x: (t: number) => string): string {
    if (this.accumulate === "i32") {
      return each(this.batch, (t) => `      h${t} = i32x4.relaxed_dot_i8x16_i7x16_add_s(v, ${x(t)}, h${t});`);
    }
    if (I16_VECTORS[this.bits] === 1) {
      return each(this.batch, (t) =>
        `      h${t} = i32x4.add(h${t}, i32x4.dot_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(v, ${x(t)}), ones));`);
    }
    const dot = (t: number) => `i16x8.relaxed_dot_i8x16_i7x16_s(v, ${x(t)})`;
    const text = each(this.batch, (t) => `      n${t} = ${this.pending ? `i16x8.add(n${t}, ${dot(t)})` : dot(t)};`);
    this.pending++;
    return this.pending === I16_VECTORS[this.bits] ? `${text}\n${this.widen()}` : text;
  }

  /** Moves what 16-bit lanes still hold to the 32-bit ones. */
  widen(): string {
    if (!this.pending) return "";
    this.pending = 0;
    return each(this.batch, (t) => `      h${t} = i32x4.add(h${t}, i32x4.dot_i16x8_s(n${t}, ones));`);
  }

  /** Locals a body needs. */
  locals(): string {
    return each(this.batch, (t) => this.accumulate === "i16" && this.bits === 4 ? `      let n${t} = zero;` : "");
  }
}

const scaleTail = (batch: number): string =>
  each(batch, (t) =>
    `      f${t} = f32x4.relaxed_madd(f32x4.mul(f32x4.convert_i32x4_s(h${t}), scale), v128.load32_splat(s, ${4 * t}), f${t});`);

/** 4 columns of a token, spread to the 4 rows. */
const spread = (batch: number, column: number) => (t: number) =>
  `v128.load32_splat(x, ${(column >> 4) * 16 * batch + 16 * t + (column & 15)})`;

function denseBody(bits: 4 | 8, batch: number, accumulate: Accumulate): string {
  const products = new Products(batch, bits, accumulate);
  const lines = [products.locals()];
  if (bits === 8) {
    for (let k = 0; k < 16; k++) {
      lines.push(`      v = v128.load(w, ${HEADER_BYTES + 16 * k});`, products.add(spread(batch, 4 * k)));
    }
  } else {
    for (let k = 0; k < 8; k++) {
      lines.push(
        `      b = v128.load(w, ${HEADER_BYTES + 16 * k}); v = i8x16.relaxed_swizzle(codebook, v128.and(b, nibble));`,
        products.add(spread(batch, 8 * k)),
        `      v = i8x16.relaxed_swizzle(codebook, v128.and(i16x8.shr_u(b, 4), nibble));`,
        products.add(spread(batch, 8 * k + 4)),
      );
    }
  }
  lines.push(products.widen());
  return lines.join("\n");
}

function dense(bits: 4 | 8, batch: number, accumulate: Accumulate): string {
  return `
export function mv_b${batch}(${SIGNATURE}): void {${CONSTANTS}
  for (let g = 0; g < groups; g++) {
    let x = xa, s = xs;
${each(batch, (t) => `    let f${t} = zero;`)}
    for (let c = 0; c < chunks; c++) {
      const first = start(w, minusOffset), scale = scales(w + 8);
      let b = zero, v = zero;
${each(batch, (t) => `      let h${t} = first;`)}
${denseBody(bits, batch, accumulate)}
${scaleTail(batch)}
      w += ${HEADER_BYTES + 32 * bits}; x += ${CHUNK * batch}; s += ${4 * batch};
    }
${storeRows(batch)}
  }
}
`;
}

/** The activations of one slot's window, picked by the indices `i`. */
const picked = (batch: number, slot: { view: string; window: number }, byte: number) => (t: number) =>
  `i8x16.relaxed_swizzle(v128.load(${slot.view === "A" ? "x" : "z"}, ${byte * batch + slot.window * 16 * batch + 16 * t}), i)`;

/** One chunk of K slots; `chunk` = 1 for the second of an unrolled pair. */
function windowsBody(windows: number, bits: 4 | 8, products: Products, batch: number, chunk: number): string {
  const slots = windowSlots(windows);
  const lines: string[] = [];
  let at = chunk * windowsChunkBytes(windows, bits);
  slots.forEach((slot, k) => {
    if (bits === 4) {
      lines.push(
        `      b = v128.load(w, ${at}); v = i8x16.relaxed_swizzle(codebook, v128.and(b, nibble)); i = v128.and(i16x8.shr_u(b, 4), nibble);`,
      );
      at += 16;
    } else {
      if (k % 2 === 0) {
        lines.push(`      b = v128.load(w, ${at}); i = v128.and(b, nibble);`);
        at += 16;
      } else {
        lines.push(`      i = v128.and(i16x8.shr_u(b, 4), nibble);`);
      }
      lines.push(`      v = v128.load(w, ${at});`);
      at += 16;
    }
    lines.push(products.add(picked(batch, slot, chunk * CHUNK)));
  });
  lines.push(products.widen());
  return lines.join("\n");
}

const windowsChunkBytes = (windows: number, bits: 4 | 8): number =>
  16 * (windows + (bits === 8 ? Math.ceil(windows / 2) : 0));

function windowed(windows: number, bits: 4 | 8, batch: number, accumulate: Accumulate): string {
  const products = new Products(batch, bits, accumulate);
  const bytes = windowsChunkBytes(windows, bits);
  return `
export function mv_b${batch}(${SIGNATURE}): void {${CONSTANTS}
  for (let g = 0; g < groups; g++) {
    let x = xa, z = xb, s = xs;
${each(batch, (t) => `    let f${t} = zero;`)}
    for (let left = chunks; left > 0;) {
      const n = min(left, blockChunks);
      left -= n;
      const first = start(w, minusOffset), scale = scales(w + 8);
      let b = zero, v = zero, i = zero;
${products.locals()}
${each(batch, (t) => `      let h${t} = first;`)}
      w += ${HEADER_BYTES};
      let c = n;
      for (; c >= 2; c -= 2) {
${windowsBody(windows, bits, products, batch, 0)}
${windowsBody(windows, bits, products, batch, 1)}
        w += ${2 * bytes}; x += ${2 * CHUNK * batch}; z += ${2 * CHUNK * batch};
      }
      if (c) {
${windowsBody(windows, bits, products, batch, 0)}
        w += ${bytes}; x += ${CHUNK * batch}; z += ${CHUNK * batch};
      }
${scaleTail(batch)}
      s += n * ${4 * batch};
    }
${storeRows(batch)}
  }
}
`;
}

/** Rows in lanes, x spread. Few tokens take several accumulators each: a multiply-add has 4 cycles of latency. */
function float(batch: number): string {
  const chains = Math.max(1, 4 / batch);
  const name = (t: number, column: number) => column % chains === 0 ? `f${t}` : `f${t}_${column % chains}`;
  const column = (c: number) =>
    `      v = v128.load(w, ${16 * c});\n` +
    each(batch, (t) =>
      `      ${name(t, c)} = f32x4.relaxed_madd(v, v128.load32_splat(x, ${4 * (c * batch + t)}), ${name(t, c)});`);
  const names = Array.from({ length: batch }, (_, t) => Array.from({ length: chains }, (_, c) => name(t, c))).flat();
  const merge = each(batch, (t) =>
    Array.from({ length: chains - 1 }, (_, c) => `    f${t} = f32x4.add(f${t}, ${name(t, c + 1)});`).join("\n"));
  return `
export function mv_b${batch}(${SIGNATURE}): void {${CONSTANTS}
  for (let g = 0; g < groups; g++) {
    let x = xa, v = zero;
${names.map((n) => `    let ${n} = zero;`).join("\n")}
    let c = chunks;
    for (; c >= 8; c -= 8) {
${Array.from({ length: 8 }, (_, c) => column(c)).join("\n")}
      w += 128; x += ${32 * batch};
    }
    for (; c > 0; c--) {
${column(0)}
      w += ${4 * ROWS}; x += ${4 * batch};
    }
${merge}
${storeRows(batch)}
  }
}
`;
}

/** AssemblyScript source of the module of `format`. */
export function linearSource(format: LinearFormat, accumulate: Accumulate): string {
  const one = (batch: number): string => {
    switch (format.kind) {
      case "f32":
        return float(batch);
      case "q8":
        return dense(8, batch, accumulate);
      case "q4":
        return dense(4, batch, accumulate);
      case "windows":
        return windowed(format.windows, format.bits, batch, accumulate);
    }
  };
  return HELPERS + [...TILE_SIZES].reverse().map(one).join("");
}
