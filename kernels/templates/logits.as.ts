// What sampling needs of a logits row.

// Lowest index of the maximum; NaN never wins; 0 when nothing does.
export function argmax(x: usize, n: i32): i32 {
  const top = max_of(x, n), top4 = f32x4.splat(top);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    const m = i32x4.bitmask(f32x4.eq(v128.load(x + (<usize>i << 2)), top4));
    if (m) return i + ctz(m);
  }
  for (; i < n; i++) if (load<f32>(x + (<usize>i << 2)) == top) return i;
  return 0;
}

function max_value(x: usize, n: i32): f32 { return max_of(x, n); }
export { max_value as max };

export function log_sum_exp(x: usize, n: i32, inverseTemperature: f32): f64 {
  const top = max_of(x, n) * inverseTemperature, top4 = f32x4.splat(top), k = f32x4.splat(inverseTemperature);
  let sum = f64x2.splat(0), i = 0;
  for (; i + 4 <= n; i += 4) {
    const e = exp4(f32x4.sub(f32x4.mul(v128.load(x + (<usize>i << 2)), k), top4));
    sum = f64x2.add(sum, f64x2.promote_low_f32x4(f32x4.add(e, i8x16.shuffle(e, e, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7))));
  }
  let total = f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
  for (; i < n; i++) total += exp1(load<f32>(x + (<usize>i << 2)) * inverseTemperature - top);
  return <f64>top + log1(total);
}

export function select_at_least(x: usize, n: i32, threshold: f32, out: usize, limit: i32): i32 {
  const t = f32x4.splat(threshold);
  let count = 0, i = 0;
  for (; i + 4 <= n; i += 4) {
    let m = i32x4.bitmask(f32x4.ge(v128.load(x + (<usize>i << 2)), t));
    for (; m; m &= m - 1, count++) if (count < limit) store<i32>(out + (<usize>count << 2), i + ctz(m));
  }
  for (; i < n; i++) {
    if (load<f32>(x + (<usize>i << 2)) >= threshold) {
      if (count < limit) store<i32>(out + (<usize>count << 2), i);
      count++;
    }
  }
  return count;
}
