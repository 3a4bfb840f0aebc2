/** Worker side of block-wise distillation: one block on hidden states of the blocks before it, beside the dense block's. */
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import type { ModelSpec } from "../../models/spec.ts";
import { openValues, type Place } from "../work_space.ts";
import { BlockPass, CHUNK_TOKENS, type Rows, type SequenceLoss } from "./block_pass.ts";
import type { Buffers } from "./buffers.ts";
import type { BlockParameters, SharedFloats } from "./parameters.ts";

export interface BlockwiseJob {
  readonly kind: "blockwise";
  /** As the block sees it. */
  readonly spec: ModelSpec;
  readonly block: BlockParameters;
  /** What it reads, and what the dense block answers: `[all sequences, length, hidden]`. */
  readonly x: Place;
  readonly targets: Place;
  readonly length: number;
  /** Which of them these are. */
  readonly sequences: readonly number[];
  /** loss: alone. gradient: summed into `gradients`, from 0. forward: x is replaced by what the block answers. */
  readonly task: "loss" | "gradient" | "forward";
  readonly gradients?: SharedFloats;
}

export async function runBlockwise(
  job: BlockwiseJob,
  linalg: LinalgRuntime,
  buffers: Buffers,
): Promise<SequenceLoss> {
  const block = await BlockPass.open(job.spec, job.block, { linalg, buffers });
  job.gradients?.fill(0);
  const together = Math.max(1, Math.floor(CHUNK_TOKENS / job.length));
  const sum = { loss: 0, forwardMs: 0, gradientMs: 0 };
  for (let from = 0; from < job.sequences.length; from += together) {
    const chunk = new Chunk(job, job.sequences.slice(from, from + together), buffers);
    const start = performance.now();
    const x = chunk.read(job.x, "x"), y = buffers.tensor("y", x.shape);
    const kept = await block.forward(x, y, chunk.rows, job.task === "gradient" ? "kept" : null);
    const forward = performance.now();
    sum.forwardMs += forward - start;
    if (job.task === "forward") {
      chunk.write(job.x, y);
      continue;
    }
    const dy = job.task === "gradient" ? buffers.tensor("dy", x.shape) : null;
    sum.loss += relativeError(y, chunk.read(job.targets, "t"), dy);
    if (dy) await block.backward({ x, kept, dy, dx: null }, job.gradients!, chunk.rows);
    sum.gradientMs += performance.now() - forward;
  }
  return sum;
}

/** Some of the sequences, in a worker's memory. */
class Chunk {
  readonly rows: Rows;

  constructor(
    readonly job: Pick<BlockwiseJob, "spec" | "length">,
    readonly sequences: readonly number[],
    readonly buffers: Buffers,
  ) {
    this.rows = { sequences: sequences.length, length: job.length };
  }

  read(place: Place, name: string): Tensor {
    const { hiddenSize } = this.job.spec, { sequences, length } = this.rows;
    const tensor = this.buffers.tensor(name, [sequences * length, hiddenSize]);
    using values = openValues(place);
    this.#each(tensor, (at, part) => values.read(at, part));
    return tensor;
  }

  write(place: Place, tensor: Tensor): void {
    using values = openValues(place);
    this.#each(tensor, (at, part) => values.write(at, part));
  }

  #each({ data }: Tensor, visit: (at: number, part: Float32Array) => void): void {
    const size = this.rows.length * this.job.spec.hiddenSize;
    this.sequences.forEach((s, i) => visit(s * size, data.subarray(i * size, (i + 1) * size)));
  }
}

/** Keeps the error of a row of zeros finite. */
const TINY = 1e-20;

/**
 * Sum over the tokens of |y - t|² / |t|². Relative to each token: a few have states a thousand times as large as the
 * others', the first above all, and would be all that is learnt. That one, an anchor of attention, counts as any other.
 *
 * @param y and t `[sequences x length, hidden]`
 * @param dy filled with the sum's gradient by y; null: not wanted
 */
export function relativeError(y: Tensor, t: Tensor, dy: Tensor | null): number {
  const [tokens, width] = y.shape;
  let sum = 0;
  for (let token = 0; token < tokens; token++) {
    const at = token * width;
    let error = 0, size = TINY;
    for (let j = at; j < at + width; j++) {
      error += (y.data[j] - t.data[j]) ** 2;
      size += t.data[j] ** 2;
    }
    sum += error / size;
    if (dy) { for (let j = at; j < at + width; j++) dy.data[j] = 2 * (y.data[j] - t.data[j]) / size; }
  }
  return sum;
}
