// Activation tiles: abi.ts says what a tile holds. The batch is a constant argument of an inlined function.

@inline function scaled4(p: usize, columnScale: usize, o: usize): v128 {
  const v = v128.load(p + o);
  return columnScale ? f32x4.mul(v, v128.load(columnScale + o)) : v;
}

@inline function scaled1(p: usize, columnScale: usize, o: usize): f32 {
  const v = load<f32>(p + o);
  return columnScale ? v * load<f32>(columnScale + o) : v;
}

// 16 codes of columns c..c+15 as signed bytes; columns from `cols` on are 0.
@inline function codes16(x: usize, columnScale: usize, c: i32, cols: i32, inverse: f32): v128 {
  const k = f32x4.splat(inverse), o = <usize>c << 2;
  if (c + 16 <= cols) {
    const a = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(scaled4(x, columnScale, o), k)));
    const b = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(scaled4(x, columnScale, o + 16), k)));
    const d = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(scaled4(x, columnScale, o + 32), k)));
    const e = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(scaled4(x, columnScale, o + 48), k)));
    return i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(d, e));
  }
  let v = i8x16.splat(0);
  // One byte enters at the front, the others move up; last column first.
  for (let i = min(cols, c + 16) - 1; i >= c; i--) {
    v = i8x16.shuffle(v, v, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
    const code = nearest<f32>(scaled1(x, columnScale, <usize>i << 2) * inverse);
    v = i8x16.replace_lane(v, 0, <i8>i32x4.extract_lane(i32x4.trunc_sat_f32x4_s(f32x4.splat(code)), 0));
  }
  return v;
}

@inline function absmax(x: usize, columnScale: usize, from: i32, to: i32): f32 {
  let m = f32x4.splat(0), c = from;
  for (; c + 4 <= to; c += 4) m = f32x4.pmax(m, f32x4.abs(scaled4(x, columnScale, <usize>c << 2)));
  let top = max4(m);
  for (; c < to; c++) top = max(top, abs(scaled1(x, columnScale, <usize>c << 2)));
  return top;
}

@inline function low(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
@inline function high(a: v128, b: v128): v128 { return i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31); }

// View B of a block of w = 4n windows is the transpose of its bytes seen as [16][w]: four perfect shuffles (interleave
// the first half with the second), since c -> 16 c mod (16 w - 1). Blocks of 64 and 128 columns stay in registers.
@inline function view_b(a: usize, b: usize, n: i32, step: usize): void {
  if (n == 1) {
    let v0 = v128.load(a), v1 = v128.load(a + step), v2 = v128.load(a + 2 * step), v3 = v128.load(a + 3 * step);
    for (let i = 0; i < 4; i++) {
      const u0 = low(v0, v2), u1 = high(v0, v2), u2 = low(v1, v3), u3 = high(v1, v3);
      v0 = u0; v1 = u1; v2 = u2; v3 = u3;
    }
    v128.store(b, v0); v128.store(b + step, v1); v128.store(b + 2 * step, v2); v128.store(b + 3 * step, v3);
    return;
  }
  if (n == 2) {
    let v0 = v128.load(a), v1 = v128.load(a + step), v2 = v128.load(a + 2 * step), v3 = v128.load(a + 3 * step);
    let v4 = v128.load(a + 4 * step), v5 = v128.load(a + 5 * step), v6 = v128.load(a + 6 * step), v7 = v128.load(a + 7 * step);
    for (let i = 0; i < 4; i++) {
      const u0 = low(v0, v4), u1 = high(v0, v4), u2 = low(v1, v5), u3 = high(v1, v5);
      const u4 = low(v2, v6), u5 = high(v2, v6), u6 = low(v3, v7), u7 = high(v3, v7);
      v0 = u0; v1 = u1; v2 = u2; v3 = u3; v4 = u4; v5 = u5; v6 = u6; v7 = u7;
    }
    v128.store(b, v0); v128.store(b + step, v1); v128.store(b + 2 * step, v2); v128.store(b + 3 * step, v3);
    v128.store(b + 4 * step, v4); v128.store(b + 5 * step, v5); v128.store(b + 6 * step, v6); v128.store(b + 7 * step, v7);
    return;
  }
  const w = n << 2;
  for (let j = 0; j < w; j++) {
    let c = j;
    for (let i = 0; i < 16; i++, c += w) store<u8>(b + i, load<u8>(a + <usize>(c >> 4) * step + (c & 15)));
    b += step;
  }
}

@inline function quantize(batch: i32, x: usize, xStride: i32, cols: i32, chunks: i32, blockChunks: i32, columnScale: usize, xa: usize, xb: usize, xs: usize, consts: usize): void {
  const offset = v128.load(consts, 80), maxCode = load<f32>(consts, 96), step = <usize>batch << 4;
  for (let block = 0; block < chunks; block += blockChunks) {
    const n = min(blockChunks, chunks - block), end = min(cols, (block + n) << 6);
    const a = xa + (<usize>block << 2) * step;
    for (let t = 0; t < batch; t++) {
      const row = x + (<usize>(t * xStride) << 2);
      const top = absmax(row, columnScale, block << 6, end);
      // Below 1e-30 the inverse would overflow: such a block counts as zero.
      const usable = top > 1e-30, scale: f32 = usable ? top / maxCode : 0, inverse: f32 = usable ? maxCode / top : 0;
      for (let i = 0, c = block << 6; i < n << 2; i++, c += 16) {
        const codes = c < cols ? codes16(row, columnScale, c, cols, inverse) : i8x16.splat(0);
        v128.store(a + <usize>i * step + (<usize>t << 4), i8x16.add(codes, offset));
      }
      for (let q = block; q < block + n; q++) store<f32>(xs + (<usize>(q * batch + t) << 2), scale);
      if (xb) view_b(a + (<usize>t << 4), xb + (<usize>block << 2) * step + (<usize>t << 4), n, step);
    }
  }
}

@inline function interleave(batch: i32, x: usize, xStride: i32, cols: i32, columnScale: usize, out: usize): void {
  for (let t = 0; t < batch; t++) {
    const row = x + (<usize>(t * xStride) << 2);
    let o = out + (<usize>t << 2);
    for (let c = 0; c < cols; c++, o += <usize>batch << 2) store<f32>(o, scaled1(row, columnScale, <usize>c << 2));
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
