/** Worker side: runs a graph as it came over calibration inputs and gathers what its layers read. */
import { OnnxRuntime } from "../../engine/graph/ort.ts";
import { OatmillError } from "../../errors.ts";
import type { GraphTensor, GraphTensors } from "../../models/onnx/graph_tensor.ts";
import { matrix } from "../linalg/matrix.ts";
import type { LinalgRuntime } from "../linalg/runtime.ts";

/** X'X is taken of so many rows, as in the pass over a model of blocks; d of all. */
const MOMENT_ROWS = 32_768;

export interface GraphJob {
  readonly kind: "graph";
  /** An encoded model whose outputs hold `collect`. */
  readonly model: Uint8Array<ArrayBuffer>;
  readonly feeds: readonly GraphTensors[];
  /** Values `[..., cols]` to gather statistics of. */
  readonly collect: readonly { readonly name: string; readonly cols: number }[];
  readonly moments: boolean;
  /** Outputs to bring back for each of the feeds. */
  readonly answers: readonly string[];
}

/** Sums over the rows of one value. */
export interface ValueSums {
  readonly name: string;
  readonly rows: number;
  /** `[cols]` */
  readonly squares: Float64Array<ArrayBuffer>;
  /** `[cols, cols]` X'X over `momentRows` rows; null when it was not asked for. */
  readonly moments: Float32Array<ArrayBuffer> | null;
  readonly momentRows: number;
}

export interface GraphRun {
  readonly sums: readonly ValueSums[];
  readonly answers: readonly GraphTensors[];
}

/** @throws {OatmillError} unsupported_format, invalid_request, non_finite_activations */
export async function runGraph(job: GraphJob, linalg: LinalgRuntime): Promise<GraphRun> {
  const runtime = await OnnxRuntime.load();
  const session = await runtime.session(job.model, linalg.threads);
  try {
    const sums = job.collect.map((value) => new Sums(value.name, value.cols, job.moments));
    const answers: GraphTensors[] = [];
    for (const feeds of job.feeds) {
      const tensors = Object.fromEntries(Object.entries(feeds).map(([name, t]) => [name, runtime.tensor(t)]));
      const found = { ...tensors, ...await runtime.run(session, tensors) };
      for (const sum of sums) await sum.add(found[sum.name].data as Float32Array<ArrayBuffer>, linalg);
      answers.push(Object.fromEntries(job.answers.map((name) => [name, plain(found[name])])));
    }
    return { sums: sums.map((sum) => sum.result()), answers };
  } finally {
    await session.release();
  }
}

const plain = (
  { type, dims, data }: { type: string; dims: readonly number[]; data: unknown },
): GraphTensor => ({
  type,
  dims: [...dims],
  data: data as ArrayBufferView<ArrayBuffer>, // cast: ONNX Runtime's own arrays are never shared
});

class Sums {
  readonly #squares: Float64Array<ArrayBuffer>;
  readonly #moments: Float32Array<ArrayBuffer> | null;
  #rows = 0;
  #momentRows = 0;

  constructor(readonly name: string, readonly cols: number, moments: boolean) {
    this.#squares = new Float64Array(cols);
    this.#moments = moments ? new Float32Array(cols * cols) : null;
  }

  /** @param x `[rows, cols]` */
  async add(x: Float32Array<ArrayBuffer>, linalg: LinalgRuntime): Promise<void> {
    const { cols } = this, rows = x.length / cols, squares = this.#squares;
    for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < cols; j++, at++) squares[j] += x[at] * x[at];
    const column = squares.findIndex((sum) => !Number.isFinite(sum));
    if (column >= 0) {
      throw new OatmillError(
        "non_finite_activations",
        `Cannot calibrate: column ${column} of value "${this.name}" is NaN, infinite or too large to be squared`,
      );
    }
    this.#rows += rows;
    if (!this.#moments || this.#momentRows >= MOMENT_ROWS) return;
    const X = matrix(rows, cols, x), { data } = await linalg.multiply(X, X, { transA: true });
    for (let i = 0; i < data.length; i++) this.#moments[i] += data[i];
    this.#momentRows += rows;
  }

  result(): ValueSums {
    const [rows, squares, moments, momentRows] = [this.#rows, this.#squares, this.#moments, this.#momentRows];
    return { name: this.name, rows, squares, moments, momentRows };
  }
}
