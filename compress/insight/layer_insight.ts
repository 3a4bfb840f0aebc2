/** Worker side: what is to be known of one linear layer. Each part only where what it needs is there. */
import type { LayerInsight } from "../../models/formats/insight_file.ts";
import type { Shape2 } from "../../kernels/layout.ts";
import { type Matrix, matrix, scaleColumns, subtract } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { fromPackedColumns, type PackedTensor, reconstruct } from "../quantize.ts";
import { windowOccupancy } from "./occupancy.ts";
import { spectrumOf } from "./spectrum.ts";

/** What one layer tells; collector.ts knows its outliers. */
export type LayerMeasures = Omit<LayerInsight, "outliers">;

export interface MeasuredLayer {
  readonly name: string;
  /** `[dOut, dIn]` before compression; null when only the artifact is there. */
  readonly W: Matrix | null;
  /** What W became, in the same coordinates; null when nothing was compressed. */
  readonly R: Matrix | null;
  /** The packed tensors behind R; empty without. */
  readonly tensors: readonly PackedTensor[];
  /** Root mean square `[dIn]` of the inputs. */
  readonly d: Float32Array | null;
  /** `[dIn, dIn]` second moments of the inputs. */
  readonly H: Float32Array<ArrayBuffer> | null;
  /** Whether the spectrum of W is wanted beside that of W diag(d): compression has no time for it. */
  readonly plain: boolean;
}

export async function layerInsight(layer: MeasuredLayer, linalg: Linalg): Promise<LayerMeasures> {
  const { name, W, R, tensors, d, H, plain } = layer;
  const rank = tensors.find((t) => t.part === "v")?.shape[0] ?? 0;
  const sparse = tensors.find((t) => t.part === "s");
  return {
    name,
    inputError: W && R && H ? await inputError(W, R, { H, linalg }) : null,
    scaled: W && d ? await spectrumOf(scaleColumns(W, d), rank, linalg) : null,
    plain: W && plain ? await spectrumOf(W, rank, linalg) : null,
    windows: sparse?.format.kind === "windows"
      ? windowOccupancy(sparse.format, sparse.bytes, sparse.shape)
      : null,
  };
}

/** tr(E H E') / tr(W H W') with E = W - R: the squares of the outputs that are lost; 0 for a layer without outputs. */
async function inputError(
  W: Matrix,
  R: Matrix,
  { H, linalg }: { readonly H: Float32Array<ArrayBuffer>; readonly linalg: Linalg },
): Promise<number> {
  const moments = matrix(W.cols, W.cols, H);
  const outputs = async (M: Matrix) => {
    const P = await linalg.multiply(M, moments);
    let sum = 0;
    for (let i = 0; i < M.data.length; i++) sum += M.data[i] * P.data[i];
    return Math.max(0, sum);
  };
  const all = await outputs(W);
  return all > 0 ? await outputs(subtract(W, R)) / all : 0;
}

/** What is known of a layer that is not being compressed. */
export interface LayerInsightJob {
  readonly kind: "layerInsight";
  readonly name: string;
  /** `[dOut, dIn]` of W. */
  readonly shape: Shape2;
  readonly W: Float32Array<SharedArrayBuffer> | null;
  readonly d: Float32Array<SharedArrayBuffer> | null;
  readonly H: Float32Array<SharedArrayBuffer> | null;
  readonly tensors: readonly PackedTensor[];
  /** What the tensors' input is multiplied by, `[dIn]`. */
  readonly scale: Float32Array | null;
}

export async function runLayerInsight(job: LayerInsightJob, linalg: Linalg): Promise<LayerMeasures> {
  const { name, shape, tensors, scale } = job;
  const plain = (values: Float32Array | null) => values && new Float32Array(values); // ONNX Runtime reads no shared memory
  const data = plain(job.W);
  const [main] = tensors;
  const same = main?.shape[0] === shape[0] && main?.shape[1] === shape[1]; // whole heads or channels may be gone
  return await layerInsight({
    name,
    W: data && matrix(shape[0], shape[1], data),
    R: data && same ? fromPackedColumns(await reconstruct(tensors, linalg), scale) : null,
    tensors,
    d: plain(job.d),
    H: plain(job.H),
    plain: true,
  }, linalg);
}
