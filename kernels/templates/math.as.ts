// Shared arithmetic of the base module: exponentials, sums of lanes.

@inline function sum4(v: v128): f32 {
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

@inline function max4(v: v128): f32 {
  return max(max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)), max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)));
}

// Maximum of x[0..n): 16 values a step, then the tail.
@inline function max_of(x: usize, n: i32): f32 {
  let a = f32x4.splat(-Infinity), b = a, c = a, d = a, i = 0;
  for (; i + 16 <= n; i += 16) {
    const p = x + (<usize>i << 2);
    a = f32x4.pmax(a, v128.load(p)); b = f32x4.pmax(b, v128.load(p, 16));
    c = f32x4.pmax(c, v128.load(p, 32)); d = f32x4.pmax(d, v128.load(p, 48));
  }
  let m = max4(f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d)));
  for (; i < n; i++) { const v = load<f32>(x + (<usize>i << 2)); if (v > m) m = v; }
  return m;
}

// Constants of exp4 as exported globals, so that they are loaded: V8 rebuilds v128 constants at every use.
export let EXP_LOW: v128 = f32x4.splat(-87.33654);
export let EXP_HIGH: v128 = f32x4.splat(88.02);
export let EXP_LOG2E: v128 = f32x4.splat(1.44269504088896341);
export let EXP_LN2_HIGH: v128 = f32x4.splat(0.693359375);
export let EXP_LN2_LOW: v128 = f32x4.splat(-2.12194440e-4);
export let EXP_P5: v128 = f32x4.splat(1.9875691500e-4);
export let EXP_P4: v128 = f32x4.splat(1.3981999507e-3);
export let EXP_P3: v128 = f32x4.splat(8.3334519073e-3);
export let EXP_P2: v128 = f32x4.splat(4.1665795894e-2);
export let EXP_P1: v128 = f32x4.splat(1.6666665459e-1);
export let EXP_P0: v128 = f32x4.splat(5.0000001201e-1);
export let EXP_ONE: v128 = f32x4.splat(1);

// e^x, Cephes expf: n = round(x / ln 2), r = x - n ln 2 in two parts, degree-5 polynomial, times 2^n; about 1 ulp.
// Below -87.3 (2^-126) the result is 0, above 88.0 it saturates near 2^127; NaN stays NaN.
@inline function exp4(v: v128): v128 {
  const x = f32x4.pmin(f32x4.pmax(v, EXP_LOW), EXP_HIGH);
  const n = f32x4.nearest(f32x4.mul(x, EXP_LOG2E));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, EXP_LN2_HIGH)), f32x4.mul(n, EXP_LN2_LOW));
  let p = f32x4.relaxed_madd(EXP_P5, r, EXP_P4);
  p = f32x4.relaxed_madd(p, r, EXP_P3);
  p = f32x4.relaxed_madd(p, r, EXP_P2);
  p = f32x4.relaxed_madd(p, r, EXP_P1);
  p = f32x4.relaxed_madd(p, r, EXP_P0);
  p = f32x4.add(f32x4.relaxed_madd(p, f32x4.mul(r, r), r), EXP_ONE);
  // Adds n to the exponent of p, which lies in 0.7..1.42: 2^n itself would overflow at n = 127 + 1.
  const e = i32x4.add(p, i32x4.shl(i32x4.relaxed_trunc_f32x4_s(n), 23));
  return v128.andnot(e, f32x4.lt(v, EXP_LOW));
}

@inline function exp1(x: f32): f32 { return f32x4.extract_lane(exp4(f32x4.splat(x)), 0); }

// ln x for x >= 1 (a sum of exponentials whose largest is 1): exponent and an atanh series. No tables: a data segment
// would overwrite the shared memory.
@inline function log1(x: f64): f64 {
  const bits = reinterpret<u64>(x);
  let e = <i32>(bits >> 52) - 1023;
  let m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (m > 1.4142135623730951) { m *= 0.5; e++; }
  const z = (m - 1) / (m + 1), q = z * z;
  let s = 1.0 / 19;
  s = s * q + 1.0 / 17; s = s * q + 1.0 / 15; s = s * q + 1.0 / 13; s = s * q + 1.0 / 11; s = s * q + 1.0 / 9;
  s = s * q + 1.0 / 7; s = s * q + 1.0 / 5; s = s * q + 1.0 / 3; s = s * q + 1;
  return <f64>e * 0.6931471805599453 + 2 * z * s;
}

export let SIGN_BIT: v128 = i32x4.splat(0x80000000);

// tanh x from e^(-2 |x|), with the sign of x; about 1e-7 absolute.
@inline function tanh4(x: v128): v128 {
  const e = exp4(f32x4.mul(f32x4.abs(x), f32x4.splat(-2)));
  const t = f32x4.div(f32x4.sub(EXP_ONE, e), f32x4.add(EXP_ONE, e));
  return v128.or(t, v128.and(x, SIGN_BIT));
}

// cap tanh(x / cap)
@inline function cap4(x: v128, cap: v128): v128 { return f32x4.mul(cap, tanh4(f32x4.div(x, cap))); }
