// Activation tiles: abi.ts says what a tile holds. Batch and `scaled` are constant arguments of inlined functions.

@inline function scaled4(scaled: bool, p: usize, columnScale: usize, o: usize): v128 {
  const v = v128.load(p + o);
  return scaled ? f32x4.mul(v, v128.load(columnScale + o)) : v;
}

@inline function scaled1(scaled: bool, p: usize, columnScale: usize, o: usize): f32 {
  const v = load<f32>(p + o);
  return scaled ? v * load<f32>(columnScale + o) : v;
}

@inline function codes4(scaled: bool, x: usize, columnScale: usize, o: usize, inverse: v128): v128 {
  return i32x4.relaxed_trunc_f32x4_s(f32x4.nearest(f32x4.mul(scaled4(scaled, x, columnScale, o), inverse)));
}

// 16 codes of columns c..c+15 as signed bytes; columns from `cols` on are 0.
@inline function codes16(scaled: bool, x: usize, columnScale: usize, c: i32, cols: i32, inverse: f32): v128 {
  const k = f32x4.splat(inverse), o = <usize>c << 2;
  if (c + 16 <= cols) {
    const a = codes4(scaled, x, columnScale, o, k), b = codes4(scaled, x, columnScale, o + 16, k);
    const d = codes4(scaled, x, columnScale, o + 32, k), e = codes4(scaled, x, columnScale, o + 48, k);
    return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(d, e));
  }
  let v = i8x16.splat(0);
  // One byte enters at the front, the others move up; last column first.
  for (let i = min(cols, c + 16) - 1; i >= c; i--) {
    const code = nearest<f32>(scaled1(scaled, x, columnScale, <usize>i << 2) * inverse);
    v = i8x16.shuffle(v, v, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
    v = i8x16.replace_lane(v, 0, <i8>i32x4.extract_lane(i32x4.trunc_sat_f32x4_s(f32x4.splat(code)), 0));
  }
  return v;
}

@inline function absmax(scaled: bool, x: usize, columnScale: usize, from: i32, to: i32): f32 {
  let m = f32x4.splat(0), n = m, c = from;
  for (; c + 16 <= to; c += 16) {
    const o = <usize>c << 2;
    m = f32x4.pmax(m, f32x4.abs(scaled4(scaled, x, columnScale, o)));
    n = f32x4.pmax(n, f32x4.abs(scaled4(scaled, x, columnScale, o + 16)));
    m = f32x4.pmax(m, f32x4.abs(scaled4(scaled, x, columnScale, o + 32)));
    n = f32x4.pmax(n, f32x4.abs(scaled4(scaled, x, columnScale, o + 48)));
  }
  let top = max4(f32x4.pmax(m, n));
  for (; c < to; c++) top = max(top, abs(scaled1(scaled, x, columnScale, <usize>c << 2)));
  return top;
}

// Four bytes of each of the rows i..i+3 of the block seen as [16][w], from column `j` on; `c` = i w + j.
@inline function rows4(a: usize, step: usize, c: i32, w: i32): v128 {
  let v = v128.load32_zero(a + <usize>(c >> 4) * step + (c & 15)); c += w;
  v = v128.load32_lane(a + <usize>(c >> 4) * step + (c & 15), v, 1); c += w;
  v = v128.load32_lane(a + <usize>(c >> 4) * step + (c & 15), v, 2); c += w;
  v = v128.load32_lane(a + <usize>(c >> 4) * step + (c & 15), v, 3);
  return i8x16.shuffle(v, v, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

// View B of a block of w = 4n windows is the transpose of its bytes seen as [16][w]: four windows at a time.
@inline function view_b(a: usize, b: usize, n: i32, step: usize): void {
  const w = n << 2;
  for (let j = 0; j < w; j += 4, b += step << 2) {
    const r0 = rows4(a, step, j, w), r1 = rows4(a, step, j + 4 * w, w);
    const r2 = rows4(a, step, j + 8 * w, w), r3 = rows4(a, step, j + 12 * w, w);
    const l0 = i8x16.shuffle(r0, r1, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const l1 = i8x16.shuffle(r2, r3, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const h0 = i8x16.shuffle(r0, r1, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const h1 = i8x16.shuffle(r2, r3, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    v128.store(b, i8x16.shuffle(l0, l1, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
    v128.store(b + step, i8x16.shuffle(l0, l1, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
    v128.store(b + 2 * step, i8x16.shuffle(h0, h1, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23));
    v128.store(b + 3 * step, i8x16.shuffle(h0, h1, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  }
}

@inline function quantize_tile(batch: i32, scaled: bool, x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  const offset = v128.load(consts, 80), maxCode = load<f32>(consts, 96), step = <usize>batch << 4;
  for (let block = 0; block < chunks; block += blockChunks) {
    const n = min(blockChunks, chunks - block), end = min(cols, (block + n) << 6);
    const a = xa + (<usize>block << 2) * step;
    for (let t = 0; t < batch; t++) {
      const row = x + (<usize>(t * xStride) << 2);
      const top = absmax(scaled, row, columnScale, block << 6, end);
      // Below 1e-30 the inverse would overflow: such a block counts as zero.
      const usable = top > 1e-30, scale: f32 = usable ? top / maxCode : 0, inverse: f32 = usable ? maxCode / top : 0;
      for (let i = 0, c = block << 6; i < n << 2; i++, c += 16) {
        const codes = c < cols ? codes16(scaled, row, columnScale, c, cols, inverse) : i8x16.splat(0);
        v128.store(a + <usize>i * step + (<usize>t << 4), i8x16.add(codes, offset));
      }
      for (let q = block; q < block + n; q++) store<f32>(xs + (<usize>(q * batch + t) << 2), scale);
      if (xb) view_b(a + (<usize>t << 4), xb + (<usize>block << 2) * step + (<usize>t << 4), n, step);
    }
  }
}

@inline function quantize(batch: i32, x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  if (columnScale) quantize_tile(batch, true, x, xStride, cols, chunks, blockChunks, columnScale, xa, xb, xs, consts);
  else quantize_tile(batch, false, x, xStride, cols, chunks, blockChunks, 0, xa, xb, xs, consts);
}

@inline function interleave(batch: i32, x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  for (let t = 0; t < batch; t++) {
    const row = x + (<usize>(t * xStride) << 2);
    let o = out + (<usize>t << 2);
    for (let c = 0; c < cols; c++, o += <usize>batch << 2) store<f32>(o, columnScale ? scaled1(true, row, columnScale, <usize>c << 2) : load<f32>(row + (<usize>c << 2)));
  }
}

export function quantize_b1(x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  quantize(1, x, xStride, cols, chunks, blockChunks, columnScale, xa, xb, xs, consts);
}

export function interleave_b1(x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  interleave(1, x, xStride, cols, columnScale, out);
}

export function quantize_b2(x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  quantize(2, x, xStride, cols, chunks, blockChunks, columnScale, xa, xb, xs, consts);
}

export function interleave_b2(x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  interleave(2, x, xStride, cols, columnScale, out);
}

export function quantize_b4(x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  quantize(4, x, xStride, cols, chunks, blockChunks, columnScale, xa, xb, xs, consts);
}

export function interleave_b4(x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  interleave(4, x, xStride, cols, columnScale, out);
}

export function quantize_b8(x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  quantize(8, x, xStride, cols, chunks, blockChunks, columnScale, xa, xb, xs, consts);
}

export function interleave_b8(x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  interleave(8, x, xStride, cols, columnScale, out);
}
