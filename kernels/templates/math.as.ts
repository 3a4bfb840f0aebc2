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

// e^x, Cephes expf: n = round(x / ln 2), r = x - n ln 2 in two parts, degree-5 polynomial, times 2^n; about 1 ulp.
// Below -87.3 (2^-126) the result is 0, above 88.3 it saturates near 2^127; NaN stays NaN.
@inline function exp4(v: v128): v128 {
  const x = f32x4.pmin(f32x4.pmax(v, f32x4.splat(-87.33654)), f32x4.splat(88.02));
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.44269504088896341)));
  let r = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.relaxed_madd(p, r, f32x4.splat(1.3981999507e-3));
  p = f32x4.relaxed_madd(p, r, f32x4.splat(8.3334519073e-3));
  p = f32x4.relaxed_madd(p, r, f32x4.splat(4.1665795894e-2));
  p = f32x4.relaxed_madd(p, r, f32x4.splat(1.6666665459e-1));
  p = f32x4.relaxed_madd(p, r, f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.relaxed_madd(p, f32x4.mul(r, r), r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return v128.andnot(f32x4.mul(p, power), f32x4.lt(v, f32x4.splat(-87.33654)));
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
