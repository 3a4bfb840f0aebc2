// Activations, additions, embedding rows.

@inline function sigmoid_times(x: v128, u: v128): v128 {
  return f32x4.div(x, f32x4.add(EXP_ONE, exp4(f32x4.neg(u))));
}

// Constants of gelu as exported globals, so that they are loaded (math.as.ts).
export let ERFC_9: v128 = f32x4.splat(0.17087277);
export let ERFC_8: v128 = f32x4.splat(-0.82215223);
export let ERFC_7: v128 = f32x4.splat(1.48851587);
export let ERFC_6: v128 = f32x4.splat(-1.13520398);
export let ERFC_5: v128 = f32x4.splat(0.27886807);
export let ERFC_4: v128 = f32x4.splat(-0.18628806);
export let ERFC_3: v128 = f32x4.splat(0.09678418);
export let ERFC_2: v128 = f32x4.splat(0.37409196);
export let ERFC_1: v128 = f32x4.splat(1.00002368);
export let ERFC_0: v128 = f32x4.splat(-1.26551223);
export let HALF: v128 = f32x4.splat(0.5);
export let SQRT_HALF: v128 = f32x4.splat(0.70710678118654752);

// x / 2 erfc(-x / sqrt 2) with the Chebyshev fit of erfc (Numerical Recipes, erfcc: 1.2e-7 relative everywhere).
@inline function gelu(x: v128): v128 {
  const u = f32x4.mul(x, SQRT_HALF), z = f32x4.abs(u);
  const t = f32x4.div(EXP_ONE, f32x4.relaxed_madd(z, HALF, EXP_ONE));
  let p = f32x4.relaxed_madd(ERFC_9, t, ERFC_8);
  p = f32x4.relaxed_madd(p, t, ERFC_7);
  p = f32x4.relaxed_madd(p, t, ERFC_6);
  p = f32x4.relaxed_madd(p, t, ERFC_5);
  p = f32x4.relaxed_madd(p, t, ERFC_4);
  p = f32x4.relaxed_madd(p, t, ERFC_3);
  p = f32x4.relaxed_madd(p, t, ERFC_2);
  p = f32x4.relaxed_madd(p, t, ERFC_1);
  p = f32x4.relaxed_madd(p, t, ERFC_0);
  const tail = f32x4.mul(t, exp4(f32x4.sub(p, f32x4.mul(z, z)))); // erfc(|u|)
  const half = f32x4.mul(x, HALF);
  // For x < 0: x / 2 tail; else x - x / 2 tail.
  const part = f32x4.mul(half, tail);
  return v128.bitselect(part, f32x4.sub(x, part), f32x4.lt(x, f32x4.splat(0)));
}

// 0.5 x (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
@inline function gelu_tanh(x: v128): v128 {
  const cubic = f32x4.relaxed_madd(f32x4.mul(x, x), f32x4.splat(0.044715), f32x4.splat(1));
  return sigmoid_times(x, f32x4.mul(f32x4.mul(x, cubic), f32x4.splat(1.5957691216057308)));
}

// x sigmoid(1.702 x), as in CLIP
@inline function quick_gelu(x: v128): v128 { return sigmoid_times(x, f32x4.mul(x, f32x4.splat(1.702))); }

@inline function activation(kind: i32, x: v128): v128 {
  if (kind == 0) return sigmoid_times(x, x);
  if (kind == 1) return gelu(x);
  if (kind == 2) return gelu_tanh(x);
  if (kind == 4) return quick_gelu(x);
  return f32x4.max(x, f32x4.splat(0));
}

@inline function activate_rows(kind: i32, gate: usize, gateStride: i32, up: usize, upStride: i32, out: usize, outStride: i32, cols: i32, rows: i32): void {
  for (let r = 0; r < rows; r++) {
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      const o = <usize>c << 2, u = v128.load(up + o);
      v128.store(out + o, gate ? f32x4.mul(activation(kind, v128.load(gate + o)), u) : activation(kind, u));
    }
    for (; c < cols; c++) {
      const o = <usize>c << 2, u = v128.load32_splat(up + o);
      const v = gate ? f32x4.mul(activation(kind, v128.load32_splat(gate + o)), u) : activation(kind, u);
      store<f32>(out + o, f32x4.extract_lane(v, 0));
    }
    if (gate) gate += <usize>gateStride << 2;
    up += <usize>upStride << 2; out += <usize>outStride << 2;
  }
}

export function activate(kind: i32, gate: usize, gateStride: i32, up: usize, upStride: i32, out: usize, outStride: i32, cols: i32, rows: i32): void {
  if (kind == 0) activate_rows(0, gate, gateStride, up, upStride, out, outStride, cols, rows);
  else if (kind == 1) activate_rows(1, gate, gateStride, up, upStride, out, outStride, cols, rows);
  else if (kind == 2) activate_rows(2, gate, gateStride, up, upStride, out, outStride, cols, rows);
  else if (kind == 4) activate_rows(4, gate, gateStride, up, upStride, out, outStride, cols, rows);
  else activate_rows(3, gate, gateStride, up, upStride, out, outStride, cols, rows);
}

export function add_vector(x: usize, xStride: i32, vector: usize, cols: i32, rows: i32, set: i32): void {
  for (let r = 0; r < rows; r++) {
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      const o = <usize>c << 2, v = v128.load(vector + o);
      v128.store(x + o, set ? v : f32x4.add(v128.load(x + o), v));
    }
    for (; c < cols; c++) {
      const o = <usize>c << 2, v = load<f32>(vector + o);
      store<f32>(x + o, set ? v : load<f32>(x + o) + v);
    }
    x += <usize>xStride << 2;
  }
}

// x += factor y
export function add_scaled(x: usize, y: usize, factor: f32, cols: i32): void {
  const factor4 = f32x4.splat(factor);
  let c = 0;
  for (; c + 4 <= cols; c += 4) {
    const o = <usize>c << 2;
    v128.store(x + o, f32x4.add(v128.load(x + o), f32x4.mul(v128.load(y + o), factor4)));
  }
  for (; c < cols; c++) {
    const o = <usize>c << 2;
    store<f32>(x + o, load<f32>(x + o) + load<f32>(y + o) * factor);
  }
}

// x = cap tanh(x / cap), in place.
export function soft_cap(x: usize, xStride: i32, cols: i32, rows: i32, cap: f32): void {
  const top = f32x4.splat(cap);
  for (let r = 0; r < rows; r++) {
    let c = 0;
    for (; c + 4 <= cols; c += 4) {
      const p = x + (<usize>c << 2);
      v128.store(p, cap4(v128.load(p), top));
    }
    for (; c < cols; c++) {
      const p = x + (<usize>c << 2);
      store<f32>(p, f32x4.extract_lane(cap4(v128.load32_splat(p), top), 0));
    }
    x += <usize>xStride << 2;
  }
}

// A row's group stands alone (1) when it is an odd last one, else it shares a panel (2): steps of 16 bytes alternate.
@inline function panel_groups(id: i32, groups: i32): usize { return (groups & 1) != 0 && id >> 2 == groups - 1 ? 1 : 2; }
@inline function panel_start(id: i32, groups: i32, groupBytes: usize): usize {
  return <usize>(id >> 3 << 1) * groupBytes + (panel_groups(id, groups) == 2 ? <usize>(id >> 2 & 1) << 4 : 0);
}

@inline function add_or_set(at: usize, v: f32, accumulate: i32): void { store<f32>(at, accumulate ? load<f32>(at) + v : v); }

export function embed_f32(table: usize, groups: i32, ids: usize, rows: i32, cols: i32, out: usize, outStride: i32, factor: f32, accumulate: i32): void {
  for (let r = 0; r < rows; r++) {
    const id = load<i32>(ids + (<usize>r << 2)), step = panel_groups(id, groups) << 4;
    let p = table + panel_start(id, groups, <usize>cols << 4) + (<usize>(id & 3) << 2);
    for (let c = 0; c < cols; c++, p += step) add_or_set(out + (<usize>c << 2), load<f32>(p) * factor, accumulate);
    out += <usize>outStride << 2;
  }
}

export function embed_q8(table: usize, groups: i32, ids: usize, rows: i32, cols: i32, out: usize, outStride: i32, factor: f32, accumulate: i32): void {
  const chunks = (cols + 63) >> 6, groupBytes = <usize>(chunks + ((cols + 3) >> 2)) << 4;
  for (let r = 0; r < rows; r++) {
    const id = load<i32>(ids + (<usize>r << 2)), lane = <usize>(id & 3), step = panel_groups(id, groups) << 4;
    let p = table + panel_start(id, groups, groupBytes);
    for (let q = 0; q < chunks; q++) {
      const scale = reinterpret<f32>(<u32>load<u16>(p + 8 + (lane << 1)) << 16) * factor, scale4 = f32x4.splat(scale);
      for (let k = 0; k < 16; k++) {
        const c = (q << 6) + (k << 2), at = p + <usize>(k + 1) * step + (lane << 2), o = out + (<usize>c << 2);
        if (c + 4 <= cols) {
          const codes = i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(at)));
          const v = f32x4.mul(f32x4.convert_i32x4_s(codes), scale4);
          v128.store(o, accumulate ? f32x4.add(v128.load(o), v) : v);
        } else {
          for (let e = 0; c + e < cols; e++) add_or_set(o + (<usize>e << 2), <f32>load<i8>(at + e) * scale, accumulate);
          break;
        }
      }
      p += 17 * step;
    }
    out += <usize>outStride << 2;
  }
}
