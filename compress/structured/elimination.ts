/**
 * Inputs leave a layer W one after the other, and after each the others make up for it as well as they can: Optimal Brain
 * Surgeon for whole columns (as in ZipLM, arXiv 2302.04089). With M = (H + λ)^-1 over the inputs that are left, removing
 * input j costs |W_j|² / M_jj, then W -= W_j M_j / M_jj and M -= M_:j M_j: / M_jj. Losses add up: inputs that repeat each
 * other are cheap only until one is left.
 *
 * Of W only K = W'W is needed. Its row j and f = M_j / M_jj change it: K -= f a' + a f', a = K_j - ½ K_jj f.
 */
import { type Matrix, scale, scaleColumns, unitPower } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { dampedInverse, DAMPING, inputSizes } from "./damped_moments.ts";
import { Downdated } from "./downdated.ts";

/** What is known of a layer's inputs. */
export interface PrunedInputs {
  /** `[dIn]` root mean square of each input. */
  readonly d: Float32Array;
  /** `[dIn, dIn]`, when what is left will be corrected; null when not. */
  readonly H: Float32Array | null;
}

/** Inputs that know of each other, in coordinates where each has size 1. */
interface Related {
  /** `[dIn, dIn]` (H + λ)^-1 */
  readonly M: Downdated;
  /** `[dIn, dIn]` W'W */
  readonly K: Downdated;
}

export class Elimination {
  readonly #linalg: Linalg;
  /** What 1 among `#norms` is in the layer's own units. */
  readonly #unit: number;
  /** `[dIn]` |W_j|² */
  readonly #norms: Float64Array;
  /** Null: inputs know nothing of each other, M = 1. */
  readonly #related: Related | null;
  /** `[dIn]` 1 = not removed. */
  readonly #left: Uint8Array;

  private constructor(
    o: { linalg: Linalg; unit: number; norms: Float64Array; related: Related | null; left: Uint8Array },
  ) {
    this.#linalg = o.linalg;
    this.#unit = o.unit;
    this.#norms = o.norms;
    this.#related = o.related;
    this.#left = o.left;
  }

  /**
   * @param W `[dOut, dIn]`
   * @param inputs without H the losses are Wanda's |W_ij| |X_j| (arXiv 2306.11695), squared and added up
   */
  static async of(W: Matrix, { d, H }: PrunedInputs, linalg: Linalg): Promise<Elimination> {
    const sizes = H ? inputSizes(H) : d;
    const powers = { W: unitPower(W.data), d: unitPower(sizes) };
    const A = scaleColumns(scale(W, powers.W), sizes.map((x) => x * powers.d));
    const related = H && { M: await inverse(H, linalg), K: Downdated.of(await gram(A, linalg)) };
    return new Elimination({
      linalg,
      unit: (powers.W * powers.d) ** -2,
      norms: related?.K.diagonal ?? columnNorms(A),
      related,
      left: new Uint8Array(W.cols).fill(1),
    });
  }

  copy(): Elimination {
    const related = this.#related && { M: this.#related.M.copy(), K: this.#related.K.copy() };
    return new Elimination({
      linalg: this.#linalg,
      unit: this.#unit,
      norms: related?.K.diagonal ?? this.#norms.slice(),
      related,
      left: this.#left.slice(),
    });
  }

  /** What removing these inputs together would cost, in mean squares of the output. */
  async lossOf(group: readonly number[]): Promise<number> {
    if (!this.#related) return this.#unit * group.reduce((sum, j) => sum + this.#norms[j], 0);
    const { M, K } = this.#related;
    await this.#settle();
    return this.#unit * lossOfAll(M.square(group), K.square(group), leastPivot(M.n));
  }

  /** Removes inputs one by one. @returns what it cost */
  async remove(group: readonly number[]): Promise<number> {
    let loss = 0;
    for (const j of group) {
      loss += this.#removeOne(j);
      if (this.#related && !this.#related.K.hasRoomFor(2)) await this.#settle();
    }
    return this.#unit * loss;
  }

  /** The input that costs least. */
  cheapest(): number {
    let best = -1, least = Infinity;
    for (let j = 0; j < this.#left.length; j++) {
      if (!this.#left[j]) continue;
      const loss = this.#lossOfOne(j);
      if (loss < least || best < 0) [best, least] = [j, loss];
    }
    return best;
  }

  #lossOfOne(j: number): number {
    if (!this.#related) return this.#norms[j];
    const { M } = this.#related;
    return Math.max(0, this.#norms[j]) / Math.max(leastPivot(M.n), M.diagonal[j]);
  }

  #removeOne(j: number): number {
    const loss = this.#lossOfOne(j);
    this.#left[j] = 0;
    if (!this.#related) return loss;
    const { M, K } = this.#related, norm = K.diagonal[j], m = M.row(j), k = K.row(j);
    const pivot = Math.max(leastPivot(M.n), M.diagonal[j]);
    const f = m.map((x) => x / pivot), a = k.map((x, i) => x - 0.5 * norm * f[i]);
    M.subtract(m, f);
    K.subtract(f, a);
    K.subtract(a, f);
    return loss;
  }

  async #settle(): Promise<void> {
    await this.#related?.M.settle(this.#linalg);
    await this.#related?.K.settle(this.#linalg);
  }
}

/**
 * No pivot of M is less: the eigenvalues of H + λ add up to n (1 + λ), those of what is left of it to less. f32 could say
 * otherwise.
 */
const leastPivot = (n: number): number => 1 / (n * (1 + DAMPING));

/** What it costs to remove all inputs of m and k `[n, n]`, their squares of M and K (used up), one by one in f64. */
function lossOfAll(m: Float64Array, k: Float64Array, floor: number): number {
  const n = Math.sqrt(m.length);
  let loss = 0;
  for (let j = 0; j < n; j++) {
    const pivot = Math.max(floor, m[j * n + j]), norm = Math.max(0, k[j * n + j]);
    loss += norm / pivot;
    for (let i = j + 1; i < n; i++) {
      const f = m[i * n + j] / pivot, g = k[i * n + j];
      for (let l = j + 1; l <= i; l++) { // lower triangles; K_il - f_i K_jl - f_l K_ij + f_i f_l K_jj
        const fl = m[l * n + j] / pivot;
        k[i * n + l] += f * (norm * fl - k[l * n + j]) - fl * g;
        m[i * n + l] -= f * m[l * n + j];
      }
    }
  }
  return loss;
}

/** M = (D^-1 H D^-1 + λ)^-1 */
async function inverse(H: Float32Array, linalg: Linalg): Promise<Downdated> {
  const all = Array.from({ length: Math.sqrt(H.length) }, (_, j) => j);
  return Downdated.of(await gram(await dampedInverse(H, all, linalg), linalg));
}

const gram = (A: Matrix, linalg: Linalg): Promise<Matrix> => linalg.multiply(A, A, { transA: true });

function columnNorms({ rows, cols, data }: Matrix): Float64Array {
  const norms = new Float64Array(cols);
  for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < cols; j++, at++) norms[j] += data[at] ** 2;
  return norms;
}
