/** Worker side of structured pruning: one of the two layers of a block that lose inputs, `o` or `down`. */
import type { Shape2 } from "../../kernels/layout.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { type Matrix, matrix, subtract } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";
import { layerError } from "../quantize.ts";
import { correctedColumns, type Split, splitOf } from "./correct.ts";
import { type PruningGoal, reachOf } from "./choose.ts";
import { Elimination, type PrunedInputs } from "./elimination.ts";
import { type ChannelLosses, channelLosses, type HeadChoice, headChoices } from "./losses.ts";

interface PrunedLayer {
  /** `[dOut, dIn]` */
  readonly W: Float32Array<SharedArrayBuffer>;
  readonly shape: Shape2;
  readonly d: Float32Array<SharedArrayBuffer>;
  /** `[dIn, dIn]`; null when what is left is not corrected. */
  readonly H: Float32Array<SharedArrayBuffer> | null;
}

/** What the block would lose with channels (`down`) or heads (`o`). */
export interface LossesJob extends PrunedLayer {
  readonly kind: "channelLosses" | "headChoices";
  readonly spec: ModelSpec;
  readonly goal: PruningGoal;
}

/** Leaves the layer these inputs. */
export interface KeepInputsJob extends PrunedLayer {
  readonly kind: "keepInputs";
  readonly kept: readonly number[];
}

export interface KeptInputs {
  /** `[dOut, kept]` */
  readonly W: Float32Array<ArrayBuffer>;
  /** Share of the output's mean square that is lost, on the calibration inputs. */
  readonly error: number;
}

/**
 * About what such a job takes besides the weights and H that threads share: six matrices as large as H where it is factored
 * and inverted, fewer before and after; copies of W.
 */
export const prunedLayerBytes = ({ W, H }: Pick<PrunedLayer, "W" | "H">): number =>
  4 * (3 * W.length + 6 * (H?.length ?? 0));

const matrixOf = ({ W, shape }: PrunedLayer): Matrix => matrix(shape[0], shape[1], new Float32Array(W));
export async function lossesOfChannels(job: LossesJob, linalg: Linalg): Promise<ChannelLosses> {
  return await channelLosses(await elimination(job, linalg), reachOf(job.spec, job.goal).channels);
}

export async function choicesOfHeads(job: LossesJob, linalg: Linalg): Promise<HeadChoice[]> {
  return await headChoices(await elimination(job, linalg), job.spec.attention, reachOf(job.spec, job.goal));
}

const elimination = (job: LossesJob, linalg: Linalg): Promise<Elimination> =>
  Elimination.of(matrixOf(job), job, linalg);

export async function keepInputs(job: KeepInputsJob, linalg: Linalg): Promise<KeptInputs> {
  const { d, H } = job, W = matrixOf(job), split = splitOf(W.cols, job.kept);
  const left = await correctedColumns(W, split, { H, linalg });
  return { W: left.data, error: await lostShare(W, spread(left, split, W.cols), { d, H, linalg }) };
}

/** The columns at their places among `cols`, zeros elsewhere. */
function spread(left: Matrix, { kept }: Split, cols: number): Matrix {
  const out = matrix(left.rows, cols);
  for (let i = 0, at = 0; i < left.rows; i++) {
    for (const j of kept) out.data[i * cols + j] = left.data[at++];
  }
  return out;
}

/** tr E H E' / tr W H W' of E = W - R; with the diagonal of H alone where there is no other. */
async function lostShare(
  W: Matrix,
  R: Matrix,
  { d, H, linalg }: PrunedInputs & { readonly linalg: Linalg },
): Promise<number> {
  if (!H) return layerError(W, R, d);
  const moments = matrix(W.cols, W.cols, new Float32Array(H)); // ONNX Runtime takes no shared memory
  const squares = async (M: Matrix) => {
    const MH = await linalg.multiply(M, moments);
    return M.data.reduce((sum, x, at) => sum + x * MH.data[at], 0);
  };
  const all = await squares(W);
  return all > 0 ? Math.max(0, await squares(subtract(W, R))) / all : 0;
}
