// Normalisations and rotary embedding. Four columns a step, then a scalar tail.

export function rmsnorm(x: usize, xStride: i32, weight: usize, out: usize, outStride: i32, cols: i32, rows: i32, eps: f32): void {
  for (let r = 0; r < rows; r++) {
    let a = f32x4.splat(0), b = a, c = 0;
    for (; c + 8 <= cols; c += 8) {
      const p = x + (<usize>c << 2), u = v128.load(p), v = v128.load(p, 16);
      a = f32x4.relaxed_madd(u, u, a); b = f32x4.relaxed_madd(v, v, b);
    }
    let sum = sum4(f32x4.add(a, b));
    for (; c < cols; c++) { const v = load<f32>(x + (<usize>c << 2)); sum += v * v; }
    const k = <f32>(1.0 / sqrt<f64>(<f64>sum / cols + eps)), k4 = f32x4.splat(k);
    for (c = 0; c + 4 <= cols; c += 4) {
      const o = <usize>c << 2;
      v128.store(out + o, f32x4.mul(f32x4.mul(v128.load(x + o), k4), v128.load(weight + o)));
    }
    for (; c < cols; c++) { const o = <usize>c << 2; store<f32>(out + o, load<f32>(x + o) * k * load<f32>(weight + o)); }
    x += <usize>xStride << 2; out += <usize>outStride << 2;
  }
}

// bias may be 0 (none). Mean first, then the variance of the differences: no cancellation.
export function layernorm(x: usize, xStride: i32, weight: usize, bias: usize, out: usize, outStride: i32, cols: i32, rows: i32, eps: f32): void {
  for (let r = 0; r < rows; r++) {
    let a = f32x4.splat(0), c = 0;
    for (; c + 4 <= cols; c += 4) a = f32x4.add(a, v128.load(x + (<usize>c << 2)));
    let sum = sum4(a);
    for (; c < cols; c++) sum += load<f32>(x + (<usize>c << 2));
    const mean = sum / <f32>cols, mean4 = f32x4.splat(mean);
    a = f32x4.splat(0);
    for (c = 0; c + 4 <= cols; c += 4) {
      const d = f32x4.sub(v128.load(x + (<usize>c << 2)), mean4);
      a = f32x4.relaxed_madd(d, d, a);
    }
    sum = sum4(a);
    for (; c < cols; c++) { const d = load<f32>(x + (<usize>c << 2)) - mean; sum += d * d; }
    const k = <f32>(1.0 / sqrt<f64>(<f64>sum / cols + eps)), k4 = f32x4.splat(k);
    for (c = 0; c + 4 <= cols; c += 4) {
      const o = <usize>c << 2, n = f32x4.mul(f32x4.mul(f32x4.sub(v128.load(x + o), mean4), k4), v128.load(weight + o));
      v128.store(out + o, bias ? f32x4.add(n, v128.load(bias + o)) : n);
    }
    for (; c < cols; c++) {
      const o = <usize>c << 2, n = (load<f32>(x + o) - mean) * k * load<f32>(weight + o);
      store<f32>(out + o, bias ? n + load<f32>(bias + o) : n);
    }
    x += <usize>xStride << 2; out += <usize>outStride << 2;
  }
}

export function rope(x: usize, xStride: i32, rows: i32, heads: i32, headDim: i32, dims: i32, positions: usize, cos: usize, sin: usize): void {
  const half = dims >> 1, far = <usize>half << 2;
  for (let r = 0; r < rows; r++) {
    const at = <usize>load<i32>(positions + (<usize>r << 2)) * far;
    for (let h = 0; h < heads; h++) {
      const p = x + (<usize>(h * headDim) << 2);
      let i = 0;
      for (; i + 4 <= half; i += 4) {
        const o = <usize>i << 2, a = v128.load(p + o), b = v128.load(p + o + far);
        const c = v128.load(cos + at + o), s = v128.load(sin + at + o);
        v128.store(p + o, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(p + o + far, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
      }
      for (; i < half; i++) {
        const o = <usize>i << 2, a = load<f32>(p + o), b = load<f32>(p + o + far);
        const c = load<f32>(cos + at + o), s = load<f32>(sin + at + o);
        store<f32>(p + o, a * c - b * s);
        store<f32>(p + o + far, b * c + a * s);
      }
    }
    x += <usize>xStride << 2;
  }
}
