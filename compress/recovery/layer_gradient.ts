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

const factors = ({ shape: [dOut, dIn], rank, U, V }: LayerParameters, buffers: Buffers) => ({
  U: matrix(dOut, rank, buffers.copy("U", U).data),
  V: matrix(rank, dIn, buffers.copy("V", V).data),
});

/** Fills W `[dOut, dIn]` with S + U V. */
export async function materialise(
  layer: LayerParameters,
  W: Tensor,
  { linalg, buffers }: LayerContext,
): Promise<void> {
  const { U, V } = factors(layer, buffers), { indices, values } = layer.kept, { data } = W;
  await linalg.multiplyInto(matrix(U.rows, V.cols, data), U, V);
  for (let i = 0; i < indices.length; i++) data[indices[i]] += values[i];
}

/** Where a layer's gradients are added to. */
export interface LayerGradient {
  readonly U: SharedFloats;
  readonly V: SharedFloats;
  /** Of the kept entries; empty when S is not trained. */
  readonly kept: SharedFloats;
}

/** Adds dU = dW V', dV = U' dW, and dS = dW where S is kept. @param dW `[dOut, dIn]` */
export async function addLayerGradient(
  layer: LayerParameters,
  dW: Tensor,
  to: LayerGradient,
  { linalg, buffers }: LayerContext,
): Promise<void> {
  const { U, V } = factors(layer, buffers), { indices } = layer.kept;
  const d = matrix(U.rows, V.cols, dW.data);
  const dU = matrix(U.rows, U.cols, buffers.tensor("dU", [U.data.length]).data);
  const dV = matrix(V.rows, V.cols, buffers.tensor("dV", [V.data.length]).data);
  await linalg.multiplyInto(dU, d, V, { transB: true });
  await linalg.multiplyInto(dV, U, d, { transA: true });
  add(to.U, dU.data);
  add(to.V, dV.data);
  const { kept } = to, { data } = dW;
  for (let i = 0; i < kept.length; i++) kept[i] += data[indices[i]];
}

export function add(to: Float32Array, values: Float32Array): void {
  for (let i = 0; i < to.length; i++) to[i] += values[i];
}
