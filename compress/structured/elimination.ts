/**
 * Inputs leave a layer W one group after the other, and after each the others make up for it as well as they can: Optimal
 * Brain Surgeon for whole columns (as in ZipLM, arXiv 2302.04089). With M = (H + λ)^-1 over the inputs that are left,
 * removing the group g costs tr W_g (M_gg)^-1 W_g', then W -= W_g (M_gg)^-1 M_g and M -= M_:g (M_gg)^-1 M_g:. Losses add up:
 * inputs that repeat each other are cheap only until one is left.
 */
import { cholesky, invertLowerTriangle } from "../linalg/factor.ts";
import type { Matrix } from "../linalg/matrix.ts";
import { dampedMoments } from "./damped_moments.ts";

/** What is known of a layer's inputs. */
export interface PrunedInputs {
  /** `[dIn]` root mean square of each input. */
  readonly d: Float32Array;
  /** `[dIn, dIn]`, when what is left will be corrected; null when not. */
  readonly H: Float32Array<ArrayBuffer> | null;
}

export class Elimination {
  readonly #n: number;
  readonly #dOut: number;
  /** `[dIn, dOut]`: W' with every input scaled to size 1. */
  readonly #W: Float64Array;
  /** `[dIn, dIn]`, its lower triangle; null: inputs know nothing of each other, M = 1. */
  readonly #M: Float64Array | null;
  /** `[dIn]` |W_j|² */
  readonly #norms: Float64Array;
  /** `[dIn]` 1 = not removed. */
  readonly #left: Uint8Array;

  private constructor(
    o: { n: number; W: Float64Array; M: Float64Array | null; norms: Float64Array; left: Uint8Array },
  ) {
    this.#n = o.n;
    this.#dOut = o.W.length / o.n;
    this.#W = o.W;
    this.#M = o.M;
    this.#norms = o.norms;
    this.#left = o.left;
  }

  /**
   * @param W `[dOut, dIn]`
   * @param inputs without H the losses are Wanda's |W_ij| |X_j| (arXiv 2306.11695), squared and added up
   */
  static of(W: Matrix, inputs: PrunedInputs): Elimination {
    const { rows, cols: n } = W;
    const { d, M } = inputs.H ? inverseMoments(inputs.H, n) : { d: inputs.d, M: null };
    const scaled = new Float64Array(n * rows), norms = new Float64Array(n);
    for (let i = 0, at = 0; i < rows; i++) {
      for (let j = 0; j < n; j++, at++) norms[j] += (scaled[j * rows + i] = W.data[at] * d[j]) ** 2;
    }
    return new Elimination({
      n,
      W: scaled,
      M,
      norms,
      left: new Uint8Array(n).fill(1),
    });
  }

  copy(): Elimination {
    return new Elimination({
      n: this.#n,
      W: this.#W.slice(),
      M: this.#M && this.#M.slice(),
      norms: this.#norms.slice(),
      left: this.#left.slice(),
    });
  }

  /** What removing these inputs together would cost, in mean squares of the output. */
  lossOf(group: readonly number[]): number {
    if (!this.#M) return group.reduce((sum, j) => sum + this.#norms[j], 0);
    const m = group.length, block = new Float64Array(m * m), dOut = this.#dOut;
    group.forEach((i, a) => group.forEach((j, b) => block[a * m + b] = this.#at(i, j)));
    const C = cholesky(block, m)!; // a diagonal block of a positive definite matrix
    const y = new Float64Array(m); // C^-1 W_g, one output at a time
    let loss = 0;
    for (let i = 0; i < dOut; i++) {
      for (let a = 0; a < m; a++) {
        let sum = this.#W[group[a] * dOut + i];
        for (let b = 0; b < a; b++) sum -= C[a * m + b] * y[b];
        y[a] = sum / C[a * m + a];
        loss += y[a] * y[a];
      }
    }
    return loss;
  }

  /** Removes inputs one by one. @returns what it cost */
  remove(group: readonly number[]): number {
    return group.reduce((loss, j) => loss + this.#removeOne(j), 0);
  }

  /** The input that costs least. */
  cheapest(): number {
    let best = -1, least = Infinity;
    for (let j = 0; j < this.#n; j++) {
      if (!this.#left[j]) continue;
      const loss = this.#M ? this.#norms[j] / this.#M[j * this.#n + j] : this.#norms[j];
      if (loss < least || best < 0) [best, least] = [j, loss];
    }
    return best;
  }

  #at(i: number, j: number): number {
    return i >= j ? this.#M![i * this.#n + j] : this.#M![j * this.#n + i];
  }

  #removeOne(j: number): number {
    this.#left[j] = 0;
    const M = this.#M, n = this.#n, dOut = this.#dOut, W = this.#W;
    if (!M) return this.#norms[j];
    const pivot = M[j * n + j];
    const row = Float64Array.from({ length: n }, (_, k) => this.#left[k] ? this.#at(j, k) : 0);
    const gone = W.subarray(j * dOut, (j + 1) * dOut);
    for (let i = 0; i < n; i++) {
      const factor = row[i] / pivot;
      if (factor === 0) continue;
      for (let k = 0, at = i * n; k <= i; k++, at++) M[at] -= factor * row[k];
      let norm = 0;
      for (let r = 0, at = i * dOut; r < dOut; r++, at++) norm += (W[at] -= factor * gone[r]) ** 2;
      this.#norms[i] = norm;
    }
    return this.#norms[j] / pivot;
  }
}

/** M = (D^-1 H D^-1 + λ)^-1 `[n, n]`, its lower triangle, and the sizes of the inputs. */
function inverseMoments(H: Float32Array, n: number): { M: Float64Array; d: Float64Array } {
  const { C, d } = dampedMoments(H, Array.from({ length: n }, (_, j) => j));
  const A = invertLowerTriangle(C, n), M = new Float64Array(n * n); // M = A'A
  for (let k = 0; k < n; k++) {
    for (let i = 0; i <= k; i++) {
      const a = A[k * n + i];
      for (let j = 0, from = k * n, to = i * n; j <= i; j++) M[to + j] += a * A[from + j];
    }
  }
  return { M, d };
}
