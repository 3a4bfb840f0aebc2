/** What becomes of hidden states behind a model: one vector. Plain floats. */

/** The mean of hidden states, summed in f64. @param states `[n, width]`, n at least 1 */
export function meanState(states: Float32Array, width: number): Float32Array<ArrayBuffer> {
  const sums = new Float64Array(width);
  for (let i = 0; i < states.length; i++) sums[i % width] += states[i];
  return Float32Array.from(sums, (sum) => sum * width / states.length);
}

/** The vector at length 1; zeros stay. */
export function unitVector(vector: Float32Array): Float32Array<ArrayBuffer> {
  const length = Math.sqrt(vector.reduce((sum, v) => sum + v * v, 0));
  return Float32Array.from(vector, (v) => length > 0 ? v / length : v);
}
