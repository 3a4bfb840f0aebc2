/**
 * The dense model over whole sequences, one block at a time, on the linear-algebra workers: where calibration
 * statistics and the dense perplexity come from. One block's weights are in memory, the residual stream where it has room.
 */
import { collectGarbage } from "../../engine/collect_garbage.ts";
import type { LinalgPool } from "../linalg/pool.ts";
import type { Checkpoint, WeightRole } from "../../models/checkpoint.ts";
import { type BlockStatistics, blockStatistics, shared, toShared } from "../statistics.ts";
import { openValues, type Place } from "../work_space.ts";
import { blockWeights } from "./block_graph.ts";
import { type BlockJob, blockJobBytes, type SharedTensor } from "./block_job.ts";
import type { BlockSums } from "./block_sums.ts";
import { logAddExp } from "./head_job.ts";
import type { Products } from "../../models/recipe.ts";
import { blockSpec, hasFinalNorm, type ModelSpec } from "../../models/spec.ts";

export type BlockWeights = Readonly<Record<string, SharedTensor>>;

/** Hidden states `[sequences, length, hidden]` between two blocks. */
export interface Residual {
  readonly values: Place;
  readonly sequences: number;
  readonly length: number;
}

/** The copy that was read is given back at once: the next one would come on top. */
const LARGE_TENSOR_BYTES = 2 ** 26;

/** Reads block `index` into shared memory. */
export async function readBlock(checkpoint: Checkpoint, index: number): Promise<BlockWeights> {
  const role = (name: string) => `block.${index}.${name}` as WeightRole;
  const weights: Record<string, SharedTensor> = {};
  for (const [name, shape] of Object.entries(blockWeights(checkpoint.spec, (n) => checkpoint.has(role(n))))) {
    const { data } = await checkpoint.read(role(name));
    weights[name] = { data: toShared(data), shape };
    if (data.byteLength >= LARGE_TENSOR_BYTES) collectGarbage();
  }
  return weights;
}

/** What token ids become before the first block. */
export interface Embedding {
  /** `[vocab, width]` */
  readonly table: Float32Array;
  readonly width: number;
  readonly scale: number;
  /** `[context, width]`, added; null: none. */
  readonly positions: Float32Array | null;
  /** `[width]` of the first type of tokens, added; null: none. */
  readonly type: Float32Array | null;
  /** What rows are normalised with in the end; null: they are not. */
  readonly norm: RowNorm | null;
}

/** Weights of a norm, `[width]` each. */
interface RowNorm {
  readonly kind: ModelSpec["norm"]["kind"];
  readonly eps: number;
  readonly weight: Float32Array;
  readonly bias: Float32Array | null;
}

export async function readEmbedding(checkpoint: Checkpoint): Promise<Embedding> {
  const { hiddenSize, embeddingScale = 1, learnedPositions, encoder } = checkpoint.spec;
  return {
    table: (await checkpoint.read("embedding")).data,
    width: hiddenSize,
    scale: embeddingScale,
    positions: learnedPositions ? (await checkpoint.read("positions")).data : null,
    type: encoder && encoder.tokenTypes > 0
      ? (await checkpoint.read("tokenTypes")).data.subarray(0, hiddenSize)
      : null,
    norm: encoder?.embeddingNorm ? await readNorm(checkpoint, "embeddingNorm") : null,
  };
}

/**
 * Embeddings of sequences of one length.
 *
 * @param place where so many values go
 */
export function embed(
  { table, width, scale, positions, type, norm }: Embedding,
  sequences: readonly Int32Array[],
  place: (values: number) => Place,
): Residual {
  const length = sequences[0]?.length ?? 0, size = length * width;
  const values = place(sequences.length * size);
  using target = openValues(values);
  sequences.forEach((ids, s) => {
    const rows = new Float32Array(size);
    ids.forEach((id, t) => rows.set(table.subarray(id * width, (id + 1) * width), t * width));
    if (scale !== 1) { for (let i = 0; i < size; i++) rows[i] *= scale; }
    if (positions) { for (let i = 0; i < size; i++) rows[i] += positions[i]; }
    if (type) { for (let i = 0; i < size; i++) rows[i] += type[i % width]; }
    if (norm) normalise(rows, norm);
    target.write(s * size, rows);
  });
  return { values, sequences: sequences.length, length };
}

/** A copy of the first sequences, in memory. */
export function firstSequences(residual: Residual, sequences: number, width: number): Residual {
  const values = shared(sequences * residual.length * width);
  using source = openValues(residual.values);
  source.read(0, values);
  return { values, sequences, length: residual.length };
}

export interface StepOptions {
  /** Number of the block. */
  readonly block: number;
  /** Whether to gather statistics, and over how many of the sequences X'X as well. */
  readonly collect: boolean;
  readonly momentSequences: number;
  /** Replace the residual stream by the block's output. */
  readonly write: boolean;
  /** See {@linkcode blockStatistics}. */
  readonly sink: boolean;
  /** Of the linear layers; default f32. */
  readonly products?: Products;
}

/** One block over the residual stream, split over the workers. */
export async function runBlockOver(
  residual: Residual,
  weights: BlockWeights,
  options: StepOptions & { readonly checkpoint: Checkpoint; readonly pool: LinalgPool },
): Promise<BlockStatistics | null> {
  const { checkpoint, pool, collect, momentSequences, write } = options;
  if (residual.sequences === 0) return null;
  const spec = blockSpec(checkpoint.spec, options.block), { length } = residual;
  const bytes = blockJobBytes({ spec, length, collect, momentSequences });
  const parts = Math.min(pool.concurrent(bytes), residual.sequences);
  const share = (total: number, i: number) =>
    Math.floor(total * (i + 1) / parts) - Math.floor(total * i / parts);
  const jobs: Promise<BlockSums>[] = [];
  for (let i = 0, from = 0; i < parts; i++) {
    const to = from + share(residual.sequences, i);
    const job: BlockJob = {
      kind: "block",
      spec,
      weights,
      x: residual.values,
      length,
      from,
      to,
      collect,
      // Both shares are rounded: never into the next worker's range.
      momentSequences: Math.min(share(momentSequences, i), to - from),
      write,
      products: options.products ?? "f32",
    };
    jobs.push(pool.run<"block">(job, bytes));
    from = to;
  }
  const sums = await Promise.all(jobs);
  return collect ? blockStatistics(sums, options) : null;
}

/** Tokens whose logits are computed together: their hidden states are copied once, the head's rows once for each time. */
const HEAD_TOKENS = 16_384;

interface HeadContext {
  readonly checkpoint: Checkpoint;
  readonly pool: LinalgPool;
}

/** Perplexity per token of `sequences`, from their hidden states after the last block. */
export async function densePerplexity(
  residual: Residual,
  sequences: readonly Int32Array[],
  context: HeadContext,
): Promise<{ readonly perplexity: number; readonly tokens: number }> {
  const width = context.checkpoint.spec.hiddenSize, { length } = residual;
  const head = toShared((await context.checkpoint.read("head")).data);
  const chunk = Math.max(1, Math.floor(HEAD_TOKENS / length));
  using source = openValues(residual.values);
  let nll = 0;
  for (let from = 0; from < sequences.length; from += chunk) {
    const some = sequences.slice(from, from + chunk), predicting = length - 1;
    const hidden = shared(some.length * predicting * width); // the last position predicts nothing
    some.forEach((_, s) =>
      source.read(
        (from + s) * length * width,
        hidden.subarray(s * predicting * width, (s + 1) * predicting * width),
      )
    );
    await normaliseRows(hidden, context.checkpoint);
    nll += await negativeLogLikelihood(hidden, some, { ...context, head });
  }
  const tokens = sequences.length * (length - 1);
  return { perplexity: Math.exp(nll / tokens), tokens };
}

/** @param hidden `[sequences, length - 1, hidden]`, normalised */
async function negativeLogLikelihood(
  hidden: Float32Array<SharedArrayBuffer>,
  sequences: readonly Int32Array[],
  { checkpoint, pool, head }: HeadContext & { readonly head: Float32Array<SharedArrayBuffer> },
): Promise<number> {
  const { vocabSize, hiddenSize: width, logitsSoftCap: softCap } = checkpoint.spec;
  const parts = await Promise.all(
    Array.from({ length: pool.threads }, (_, i) =>
      pool.run<"head">({
        kind: "head",
        hidden,
        head,
        width,
        softCap,
        from: Math.floor(vocabSize * i / pool.threads),
        to: Math.floor(vocabSize * (i + 1) / pool.threads),
      })),
  );
  let nll = 0, row = 0;
  for (const ids of sequences) {
    for (let t = 1; t < ids.length; t++, row++) {
      let logit = 0;
      for (let j = 0; j < width; j++) logit += hidden[row * width + j] * head[ids[t] * width + j];
      if (softCap) logit = softCap * Math.tanh(logit / softCap);
      nll += parts.map((p) => p[row]).reduce(logAddExp) - logit;
    }
  }
  return nll;
}

/** A norm of hidden states, by default the final one (of a model that has one), in place, in f64. */
export async function normaliseRows(
  hidden: Float32Array,
  checkpoint: Checkpoint,
  role: "finalNorm" | "embeddingNorm" = "finalNorm",
): Promise<void> {
  if (role === "finalNorm" && !hasFinalNorm(checkpoint.spec)) return;
  normalise(hidden, await readNorm(checkpoint, role));
}

async function readNorm(checkpoint: Checkpoint, role: "finalNorm" | "embeddingNorm"): Promise<RowNorm> {
  const { kind, eps } = checkpoint.spec.norm, { data: weight } = await checkpoint.read(role);
  const hasBias = kind === "layernorm" && checkpoint.has(`${role}.bias`);
  return { kind, eps, weight, bias: hasBias ? (await checkpoint.read(`${role}.bias`)).data : null };
}

function normalise(hidden: Float32Array, { kind, eps, weight, bias }: RowNorm): void {
  const n = weight.length;
  for (let at = 0; at < hidden.length; at += n) {
    const row = hidden.subarray(at, at + n);
    let mean = 0, square = 0;
    if (kind === "layernorm") { for (const v of row) mean += v / n; }
    for (const v of row) square += (v - mean) ** 2 / n;
    const factor = 1 / Math.sqrt(square + eps);
    for (let j = 0; j < n; j++) row[j] = (row[j] - mean) * factor * weight[j] + (bias ? bias[j] : 0);
  }
}
