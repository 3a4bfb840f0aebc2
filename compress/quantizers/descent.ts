/** Coordinate descent on codes and scales: lowers tr (T - Q) H (T - Q)', and no step ever raises it. */
import { type CodedMatrix, type CodeGrid, decode, roundScale, runCount } from "../../kernels/packers.ts";
import { type Matrix, matrix, subtract } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { clampToGrid } from "./grid.ts";

/** Times that every run of columns is visited, and rounds of (scale, codes) at each visit. */
const SWEEPS = 2;
const ROUNDS = 2;

export interface DescentOptions {
  /** `[dIn, dIn]` second moments of the inputs. */
  readonly H: Matrix;
  readonly grid: CodeGrid;
  /** `[dOut, dIn]`: 0 where nothing is stored and the code stays 0. */
  readonly mask?: Uint8Array;
  readonly linalg: Linalg;
}

/**
 * @param T `[dOut, dIn]`, what the codes should stand for
 * @param start codes and scales to improve on; runs without a scale stay 0
 */
export async function descend(T: Matrix, start: CodedMatrix, options: DescentOptions): Promise<CodedMatrix> {
  const { rows, cols, runColumns } = start, { H, linalg } = options;
  const out: CodedMatrix = { ...start, codes: start.codes.slice(), scales: start.scales.slice() };
  const G = await linalg.multiply(subtract(T, matrix(rows, cols, decode(out))), H); // minus half the gradient
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (let run = 0; run < runCount(cols, runColumns); run++) {
      const step = improveRun(out, G, run, options);
      const from = run * runColumns;
      const rowsOfH = matrix(step.cols, cols, H.data.slice(from * cols, (from + step.cols) * cols));
      const update = (await linalg.multiply(step, rowsOfH)).data;
      for (let at = 0; at < update.length; at++) G.data[at] -= update[at];
    }
  }
  return out;
}

/** Improves one run of every row, the others as they are; @returns what it added to the values `[dOut, columns]` */
function improveRun(
  { rows, cols, codes, scales, runColumns }: CodedMatrix,
  G: Matrix,
  run: number,
  { H, grid, mask }: DescentOptions,
): Matrix {
  const runs = runCount(cols, runColumns);
  const local = new RunDescent(H, run * runColumns, Math.min(cols, (run + 1) * runColumns));
  const step = matrix(rows, local.width);
  for (let i = 0; i < rows; i++) {
    const at = i * cols + local.from, end = at + local.width, before = scales[i * runs + run];
    if (before === 0) continue;
    const own = codes.subarray(at, end), change = step.data.subarray(i * local.width, (i + 1) * local.width);
    for (let k = 0; k < own.length; k++) change[k] = -own[k] * before;
    const options = { grid, mask: mask?.subarray(at, end) };
    const scale = scales[i * runs + run] = local.improve(own, before, G.data.subarray(at, end), options);
    for (let k = 0; k < own.length; k++) change[k] += own[k] * scale;
  }
  return step;
}

/** The columns of one run: H among them, and the gradient of the row at hand. */
class RunDescent {
  readonly width: number;
  readonly #H: Float64Array;
  readonly #g: Float64Array;
  readonly #Hc: Float64Array;

  constructor(H: Matrix, readonly from: number, to: number) {
    const n = this.width = to - from;
    this.#H = new Float64Array(n * n);
    for (let j = 0; j < n; j++) {
      this.#H.set(H.data.subarray((from + j) * H.cols + from, (from + j) * H.cols + to), j * n);
    }
    this.#g = new Float64Array(n);
    this.#Hc = new Float64Array(n);
  }

  /** Changes `codes`; @returns the scale that goes with them */
  improve(
    codes: Int8Array,
    scale: number,
    gradient: Float32Array,
    options: { readonly grid: CodeGrid; readonly mask?: Uint8Array },
  ): number {
    this.#g.set(gradient);
    for (let round = 0; round < ROUNDS; round++) {
      scale = this.#fitScale(codes, scale);
      if (!this.#fitCodes(codes, scale, options)) break;
    }
    return scale;
  }

  /** The best scale for the codes, where rounding it to bf16 leaves a gain. */
  #fitScale(codes: Int8Array, scale: number): number {
    const n = this.width, H = this.#H, g = this.#g, Hc = this.#Hc.fill(0);
    let slope = 0, curvature = 0;
    for (let j = 0; j < n; j++) {
      const c = codes[j];
      if (c === 0) continue;
      slope += c * g[j];
      for (let k = 0, row = j * n; k < n; k++) Hc[k] += c * H[row + k];
    }
    for (let j = 0; j < n; j++) curvature += codes[j] * Hc[j];
    if (!(curvature > 0)) return scale;
    const next = roundScale(scale + slope / curvature), step = next - scale;
    if (next === 0 || step * (step * curvature - 2 * slope) >= 0) return scale;
    for (let k = 0; k < n; k++) g[k] -= step * Hc[k];
    return next;
  }

  /** Moves every code to where its column's error is least; @returns whether one changed */
  #fitCodes(
    codes: Int8Array,
    scale: number,
    { grid, mask }: { readonly grid: CodeGrid; readonly mask?: Uint8Array },
  ): boolean {
    const n = this.width, H = this.#H, g = this.#g;
    let changed = false;
    for (let j = 0; j < n; j++) {
      const curvature = H[j * n + j] * scale;
      if (curvature === 0 || mask?.[j] === 0) continue;
      const code = codes[j], next = clampToGrid(grid, Math.round(code + g[j] / curvature));
      if (next === code) continue;
      codes[j] = next;
      changed = true;
      const step = (next - code) * scale;
      for (let k = 0, row = j * n; k < n; k++) g[k] -= step * H[row + k];
    }
    return changed;
  }
}
