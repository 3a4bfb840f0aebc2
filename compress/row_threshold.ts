/**
 * Which absolute value is the k-th largest of a row: the inner loop of every mask. Non-negative floats order like
 * their bits, so everything here compares integers.
 */

/** Half width of the bracket around a guess, in bits: a quarter octave. */
const BRACKET = 1 << 21;

/** Reusable state for rows of one length. */
export class RowThreshold {
  /** Absolute values of the current row, as bits: to be filled by the caller before {@linkcode find}. */
  readonly bits: Int32Array;
  readonly #candidates: Int32Array;

  constructor(readonly cols: number) {
    this.bits = new Int32Array(cols);
    this.#candidates = new Int32Array(cols);
  }

  /**
   * Bits of the k-th largest entry, 1 <= k <= cols.
   *
   * @param guess a value it was close to before (0: none). With a fair one only the entries near it are sorted out:
   * 1.7 instead of 6 ns an entry.
   */
  find(k: number, guess: number): number {
    const { bits, cols } = this, near = this.#candidates;
    const low = Math.max(0, guess - BRACKET), high = guess === 0 ? -1 : guess + BRACKET;
    if (guess > 0) {
      let above = 0, count = 0;
      for (let j = 0; j < cols; j++) {
        const b = bits[j];
        if (b >= low) {
          if (b > high) above++;
          else near[count++] = b;
        }
      }
      if (above < k && k <= above + count) return selectLargest(near, count, k - above);
    }
    near.set(bits);
    return selectLargest(near, cols, k);
  }
}

/** The k-th largest of the first n values (1 <= k <= n); reorders them (Hoare's quickselect). */
function selectLargest(values: Int32Array, n: number, k: number): number {
  let left = 0, right = n - 1;
  const target = k - 1;
  while (left < right) {
    const a = values[left], b = values[(left + right) >> 1], c = values[right];
    const pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b); // median of three
    let i = left, j = right;
    while (i <= j) {
      while (values[i] > pivot) i++;
      while (values[j] < pivot) j--;
      if (i <= j) {
        const t = values[i];
        values[i++] = values[j];
        values[j--] = t;
      }
    }
    if (target <= j) right = j;
    else if (target >= i) left = i;
    else break;
  }
  return values[target];
}
