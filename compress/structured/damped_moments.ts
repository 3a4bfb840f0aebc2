/** Second moments of some inputs, in coordinates where each has size 1, damped and factored. */
import { cholesky } from "../linalg/factor.ts";

/**
 * Added to the diagonal. Inputs that repeat others keep H positive definite by it, and what is handed on to them is a
 * thousandth too small.
 */
export const DAMPING = 1e-3;

export interface DampedMoments {
  /** `[dIn]` root mean square of every input, chosen or not. */
  readonly d: Float64Array;
  /** Lower triangle C `[n, n]` of C C' = (D^-1 H D^-1 + λ), over the chosen inputs. */
  readonly C: Float64Array;
  /** H_ij / (d_i d_j), 0 for dead inputs. */
  readonly unit: (i: number, j: number) => number;
}

/**
 * @param H `[dIn, dIn]`
 * @param inputs which of them, in what order
 * @throws {RangeError} when H is no matrix of second moments
 */
export function dampedMoments(H: Float32Array, inputs: readonly number[]): DampedMoments {
  const n = inputs.length, dIn = Math.sqrt(H.length);
  const d = Float64Array.from({ length: dIn }, (_, j) => Math.sqrt(H[j * dIn + j]));
  const unit = (i: number, j: number) => d[i] > 0 && d[j] > 0 ? H[i * dIn + j] / (d[i] * d[j]) : 0;
  const G = new Float64Array(n * n);
  for (let a = 0; a < n; a++) {
    for (let b = 0; b <= a; b++) G[a * n + b] = unit(inputs[a], inputs[b]);
    G[a * n + a] += DAMPING;
  }
  const C = cholesky(G, n);
  if (!C) throw new RangeError("The damped second moments are not positive definite");
  return { d, C, unit };
}
