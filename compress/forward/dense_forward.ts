/**
 * The dense model over whole sequences, one block at a time, on the linear-algebra workers: where calibration
 * statistics and the dense perplexity come from. One block's weights and the residual stream are in memory.
 */
import type { LinalgPool } from "../linalg/pool.ts";
import type { Checkpoint, WeightRole } from "../../models/checkpoint.ts";
import { type BlockStatistics, blockStatistics, shared, toShared } from "../statistics.ts";
import { blockWeights } from "./block_graph.ts";
import type { BlockJob, BlockSums, SharedTensor } from "./block_job.ts";
import { logAddExp } from "./head_job.ts";

export type BlockWeights = Readonly<Record<string, SharedTensor>>;

/** Hidden states `[sequences, length, hidden]` between two blocks. */
export interface Residual {
  readonly data: Float32Array<SharedArrayBuffer>;
  readonly sequences: number;
  readonly length: number;
}

/** Reads block `index` into shared memory. */
export async function readBlock(checkpoint: Checkpoint, index: number): Promise<BlockWeights> {
  const role = (name: string) => `block.${index}.${name}` as WeightRole;
  const weights: Record<string, SharedTensor> = {};
  for (const [name, shape] of Object.entries(blockWeights(checkpoint.spec, (n) => checkpoint.has(role(n))))) {
    const { data } = await checkpoint.read(role(name));
    weights[name] = { data: toShared(data), shape };
  }
  return weights;
}

/** Token embeddings of sequences of one length. */
export function embed(
  embedding: Float32Array,
  sequences: readonly Int32Array[],
  width: number,
): Residual {
  const length = sequences[0]?.length ?? 0;
  const data = shared(sequences.length * length * width);
  sequences.forEach((ids, s) =>
    ids.forEach((id, t) =>
      data.set(embedding.subarray(id * width, (id + 1) * width), (s * length + t) * width)
    )
  );
  return { data, sequences: sequences.length, length };
}

export interface StepOptions {
  /** Whether to gather statistics, and over how many of the sequences X'X as well. */
  readonly collect: boolean;
  readonly momentSequences: number;
  /** Replace the residual stream by the block's output. */
  readonly write: boolean;
  /** See {@linkcode blockStatistics}. */
  readonly sink: boolean;
}

/** One block over the residual stream, split over the workers. */
export async function runBlockOver(
  residual: Residual,
  weights: BlockWeights,
  options: StepOptions & { readonly checkpoint: Checkpoint; readonly pool: LinalgPool },
): Promise<BlockStatistics | null> {
  const { checkpoint, pool, collect, momentSequences, write } = options;
  if (residual.sequences === 0) return null;
  const parts = Math.min(pool.threads, residual.sequences);
  const share = (total: number, i: number) =>
    Math.floor(total * (i + 1) / parts) - Math.floor(total * i / parts);
  const jobs: Promise<BlockSums>[] = [];
  for (let i = 0, from = 0; i < parts; i++) {
    const to = from + share(residual.sequences, i);
    const job: BlockJob = {
      kind: "block",
      spec: checkpoint.spec,
      weights,
      x: residual.data,
      length: residual.length,
      from,
      to,
      collect,
      // Both shares are rounded: never into the next worker's range.
      momentSequences: Math.min(share(momentSequences, i), to - from),
      write,
    };
    jobs.push(pool.run<"block">(job));
    from = to;
  }
  const sums = await Promise.all(jobs);
  return collect ? blockStatistics(sums, options) : null;
}

/** Perplexity per token of `sequences`, from their hidden states after the last block. */
export async function densePerplexity(
  residual: Residual,
  sequences: readonly Int32Array[],
  { checkpoint, pool }: { readonly checkpoint: Checkpoint; readonly pool: LinalgPool },
): Promise<{ readonly perplexity: number; readonly tokens: number }> {
  const { spec } = checkpoint, width = spec.hiddenSize, { length } = residual;
  const predicting = sequences.length * (length - 1);
  const hidden = shared(predicting * width); // the last position predicts nothing
  for (let s = 0, at = 0; s < sequences.length; s++, at += (length - 1) * width) {
    hidden.set(residual.data.subarray(s * length * width, (s * length + length - 1) * width), at);
  }
  await normaliseRows(hidden, checkpoint);
  const head = toShared((await checkpoint.read("head")).data);
  const parts = await Promise.all(
    Array.from({ length: pool.threads }, (_, i) =>
      pool.run<"head">({
        kind: "head",
        hidden,
        head,
        width,
        from: Math.floor(spec.vocabSize * i / pool.threads),
        to: Math.floor(spec.vocabSize * (i + 1) / pool.threads),
      })),
  );
  let nll = 0;
  for (let s = 0, row = 0; s < sequences.length; s++) {
    for (let t = 1; t < length; t++, row++) {
      const target = sequences[s][t];
      let logit = 0;
      for (let j = 0; j < width; j++) logit += hidden[row * width + j] * head[target * width + j];
      nll += parts.map((p) => p[row]).reduce(logAddExp) - logit;
    }
  }
  return { perplexity: Math.exp(nll / predicting), tokens: predicting };
}

/** The final norm, in place, in f64. */
async function normaliseRows(hidden: Float32Array, checkpoint: Checkpoint): Promise<void> {
  const { norm, hiddenSize: n } = checkpoint.spec;
  const weight = (await checkpoint.read("finalNorm")).data;
  const bias = norm.kind === "layernorm" && checkpoint.has("finalNorm.bias")
    ? (await checkpoint.read("finalNorm.bias")).data
    : null;
  for (let at = 0; at < hidden.length; at += n) {
    const row = hidden.subarray(at, at + n);
    let mean = 0, square = 0;
    if (norm.kind === "layernorm") { for (const v of row) mean += v / n; }
    for (const v of row) square += (v - mean) ** 2 / n;
    const factor = 1 / Math.sqrt(square + norm.eps);
    for (let j = 0; j < n; j++) row[j] = (row[j] - mean) * factor * weight[j] + (bias ? bias[j] : 0);
  }
}
