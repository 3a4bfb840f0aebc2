/** Between a layer's W = S + U V, as graphs read it, and what of it is trained. */
import { matrix } from "../linalg/matrix.ts";
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import type { Buffers } from "./buffers.ts";
import type { LayerParameters, SharedFloats } from "./parameters.ts";

/** What they need besides. */
export interface LayerContext {
  readonly linalg: LinalgRuntime;
  readonly buffers: Buffers;
}

const factors = ({ shape: [dOut, dIn], rank, U, V, columns }: LayerParameters, buffers: Buffers) => {
  const inUnits = matrix(rank, dIn, buffers.copy("V", V).data);
  if (columns) multiplyColumns(inUnits.data, columns);
  return { U: matrix(dOut, rank, buffers.copy("U", U).data), V: inUnits };
};

const onesOf = (length: number): Float32Array => new Float32Array(length).fill(1);

/** M diag(columns), in place. */
function multiplyColumns(data: Float32Array, columns: Float32Array): void {
  const width = columns.length;
  for (let at = 0; at < data.length; at += width) for (let j = 0; j < width; j++) data[at + j] *= columns[j];
}

/** Fills W `[dOut, dIn]` with (S + U V) diag(columns). */
export async function materialise(
  layer: LayerParameters,
  W: Tensor,
  { linalg, buffers }: LayerContext,
): Promise<void> {
  const { U, V } = factors(layer, buffers), { indices, values } = layer.kept, { data } = W;
  await linalg.multiplyInto(matrix(U.rows, V.cols, data), U, V);
  const columns = layer.columns ?? onesOf(V.cols);
  // Rows follow each other, so no place is divided by dIn; a callback for each took twice the time of all the rest.
  for (let i = 0, start = 0; i < indices.length; i++) {
    const place = indices[i];
    while (place >= start + V.cols) start += V.cols;
    data[place] += values[i] * columns[place - start];
  }
}

/** Where a layer's gradients are added to. */
export interface LayerGradient {
  readonly U: SharedFloats;
  readonly V: SharedFloats;
  /** Of the kept entries; empty when S is not trained. */
  readonly kept: SharedFloats;
}

/**
 * Adds dS, where S is kept, dU and dV: with D = dW diag(columns) they are D, D V', U' D.
 * @param dW `[dOut, dIn]`
 */
export async function addLayerGradient(
  layer: LayerParameters,
  dW: Tensor,
  to: LayerGradient,
  { linalg, buffers }: LayerContext,
): Promise<void> {
  const { U, V } = factors(layer, buffers), { kept: { indices }, columns = onesOf(V.cols) } = layer;
  const d = matrix(U.rows, V.cols, dW.data);
  const dU = matrix(U.rows, U.cols, buffers.tensor("dU", [U.data.length]).data);
  const dV = matrix(V.rows, V.cols, buffers.tensor("dV", [V.data.length]).data);
  await linalg.multiplyInto(dU, d, V, { transB: true });
  await linalg.multiplyInto(dV, U, d, { transA: true });
  multiplyColumns(dV.data, columns);
  add(to.U, dU.data);
  add(to.V, dV.data);
  const { kept } = to, { data } = dW;
  for (let i = 0, start = 0; i < kept.length; i++) {
    const place = indices[i];
    while (place >= start + V.cols) start += V.cols;
    kept[i] += data[place] * columns[place - start];
  }
}

export function add(to: Float32Array, values: Float32Array): void {
  for (let i = 0; i < to.length; i++) to[i] += values[i];
}
