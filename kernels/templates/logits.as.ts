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

// Maximum of every 64 values; returns how many there are.
export function block_max(x: usize, n: i32, out: usize): i32 {
  const low = f32x4.splat(-Infinity);
  let count = 0, i = 0;
  for (; i + 64 <= n; i += 64, count++) {
    // Lanes meet by shuffles: scalar f32.max takes a branch for NaN (a row of 128,256: 72 instead of 110 us with all of top-k).
    const p = x + (<usize>i << 2);
    let a = f32x4.pmax(low, v128.load(p)), b = f32x4.pmax(low, v128.load(p, 16)), c = f32x4.pmax(low, v128.load(p, 32)), d = f32x4.pmax(low, v128.load(p, 48));
    a = f32x4.pmax(a, v128.load(p, 64)); b = f32x4.pmax(b, v128.load(p, 80)); c = f32x4.pmax(c, v128.load(p, 96)); d = f32x4.pmax(d, v128.load(p, 112));
    a = f32x4.pmax(a, v128.load(p, 128)); b = f32x4.pmax(b, v128.load(p, 144)); c = f32x4.pmax(c, v128.load(p, 160)); d = f32x4.pmax(d, v128.load(p, 176));
    a = f32x4.pmax(a, v128.load(p, 192)); b = f32x4.pmax(b, v128.load(p, 208)); c = f32x4.pmax(c, v128.load(p, 224)); d = f32x4.pmax(d, v128.load(p, 240));
    a = f32x4.pmax(f32x4.pmax(a, b), f32x4.pmax(c, d));
    a = f32x4.pmax(a, i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    a = f32x4.pmax(a, i8x16.shuffle(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    store<f32>(out + (<usize>count << 2), f32x4.extract_lane(a, 0));
  }
  if (i == n) return count;
  store<f32>(out + (<usize>count << 2), max_of(x + (<usize>i << 2), n - i));
  return count + 1;
}

// Sum of e^((x - top) k) of up to 64 values: f32 lanes of 16 values each.
@inline function exp_block(x: usize, n: i32, top: f32, k: f32): f64 {
  const top4 = f32x4.splat(top), k4 = f32x4.splat(k);
  let a = f32x4.splat(0), b = a, i = 0;
  for (; i + 8 <= n; i += 8) {
    const p = x + (<usize>i << 2);
    a = f32x4.add(a, exp4(f32x4.mul(f32x4.sub(v128.load(p), top4), k4)));
    b = f32x4.add(b, exp4(f32x4.mul(f32x4.sub(v128.load(p, 16), top4), k4)));
  }
  let sum = sum4(f32x4.add(a, b));
  for (; i < n; i++) sum += exp1((load<f32>(x + (<usize>i << 2)) - top) * k);
  return <f64>sum;
}

// Sums of e^((x - max) k) over every 64 values, f64; behind them in `out` the blocks' maxima. Returns the total.
export function exp_sums(x: usize, n: i32, k: f32, negligible: f32, out: usize): f64 {
  const maxima = out + (<usize>((n + 63) >> 6) << 3);
  const blocks = block_max(x, n, maxima), top = max_of(maxima, blocks);
  let total: f64 = 0;
  for (let b = 0; b < blocks; b++) {
    let sum: f64 = 0;
    if ((load<f32>(maxima + (<usize>b << 2)) - top) * k >= negligible) sum = exp_block(x + (<usize>b << 8), min(64, n - (b << 6)), top, k);
    store<f64>(out + (<usize>b << 3), sum);
    total += sum;
  }
  return total;
}

// Inverse of the cumulative distribution at u: the block by its sum, then the value in it.
export function draw_all(x: usize, n: i32, k: f32, negligible: f32, u: f64, scratch: usize): i32 {
  const blocks = (n + 63) >> 6;
  let left = u * exp_sums(x, n, k, negligible, scratch);
  let block = 0;
  for (let b = 0; b < blocks; b++) {
    const sum = load<f64>(scratch + (<usize>b << 3));
    if (sum == 0) continue;
    block = b;
    if (left < sum) break;
    left -= sum;
  }
  const top = max_of(scratch + (<usize>blocks << 3), blocks), end = min(n, (block + 1) << 6);
  let last = block << 6;
  for (let i = last; i < end; i++) {
    const e = exp1((load<f32>(x + (<usize>i << 2)) - top) * k);
    if (e > 0) last = i;
    left -= <f64>e;
    if (left < 0) break;
  }
  return last;
}

@inline function weight_of(x: usize, id: i32, top: f32, k: f32): f64 {
  return <f64>exp1((load<f32>(x + (<usize>id << 2)) - top) * k);
}

export function exp_sum(x: usize, ids: usize, count: i32, k: f32, top: f32): f64 {
  let total: f64 = 0;
  for (let i = 0; i < count; i++) total += weight_of(x, load<i32>(ids + (<usize>i << 2)), top, k);
  return total;
}

// Draws one of `ids`, without those of weight below `least`.
export function draw(x: usize, ids: usize, count: i32, k: f32, top: f32, least: f64, u: f64): i32 {
  let total: f64 = 0;
  for (let i = 0; i < count; i++) {
    const w = weight_of(x, load<i32>(ids + (<usize>i << 2)), top, k);
    if (w >= least) total += w;
  }
  let left = u * total, last = load<i32>(ids);
  for (let i = 0; i < count; i++) {
    const id = load<i32>(ids + (<usize>i << 2)), w = weight_of(x, id, top, k);
    if (w < least || w == 0) continue;
    last = id;
    left -= w;
    if (left < 0) break;
  }
  return last;
}

// a before b: larger value, then lower index.
@inline function before(x: usize, a: i32, b: i32): bool {
  const va = load<f32>(x + (<usize>a << 2)), vb = load<f32>(x + (<usize>b << 2));
  return va > vb || (va == vb && a < b);
}

@inline function swap(ids: usize, i: i32, j: i32): void {
  const a = load<i32>(ids + (<usize>i << 2));
  store<i32>(ids + (<usize>i << 2), load<i32>(ids + (<usize>j << 2)));
  store<i32>(ids + (<usize>j << 2), a);
}

// Moves the fewest likeliest ids whose weights e^((x - top) k) add up to `mass` to the front; returns how many. Quickselect
// that adds up the weights of what it puts to the left.
export function keep_likeliest(x: usize, ids: usize, count: i32, k: f32, top: f32, mass: f64): i32 {
  let lo = 0, hi = count;
  let have: f64 = 0; // weight of ids[0..lo), always less than mass
  while (hi - lo > 1) {
    // Median of three to the end: candidates come by index, not at random.
    const middle = (lo + hi) >> 1, end = hi - 1;
    if (before(x, load<i32>(ids + (<usize>middle << 2)), load<i32>(ids + (<usize>lo << 2)))) swap(ids, middle, lo);
    if (before(x, load<i32>(ids + (<usize>end << 2)), load<i32>(ids + (<usize>lo << 2)))) swap(ids, end, lo);
    if (before(x, load<i32>(ids + (<usize>middle << 2)), load<i32>(ids + (<usize>end << 2)))) swap(ids, middle, end);
    const pivot = load<i32>(ids + (<usize>end << 2));
    let at = lo, left: f64 = 0;
    for (let i = lo; i < end; i++) {
      const id = load<i32>(ids + (<usize>i << 2));
      if (!before(x, id, pivot)) continue;
      left += weight_of(x, id, top, k);
      swap(ids, at++, i);
    }
    swap(ids, at, end);
    if (have + left >= mass) {
      hi = max(at, lo + 1);
      continue;
    }
    have += left + weight_of(x, pivot, top, k);
    lo = at + 1;
    if (have >= mass) return lo;
  }
  return hi;
}
