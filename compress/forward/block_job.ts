/** Worker side of the calibration forward: one block over a range of sequences, statistics reduced on the spot. */
import type { LinalgRuntime } from "../linalg/runtime.ts";
import { linearShapes, type ModelSpec } from "../../models/spec.ts";
import type { Products } from "../../models/recipe.ts";
import type { Place } from "../work_space.ts";
import { ChunkRunner } from "./block_chunks.ts";
import { type Collect, inputWidths, QUERY_BLOCK } from "./block_graph.ts";
import type { BlockSums } from "./block_sums.ts";
import { hasExactInt8 } from "./int8_linear.ts";

/** About this many tokens pass through the graph at once: [2048, n] products run at full speed. */
const CHUNK_TOKENS = 2048;

export interface SharedTensor {
  readonly data: Float32Array<SharedArrayBuffer>;
  readonly shape: readonly number[];
}

export interface BlockJob {
  readonly kind: "block";
  readonly spec: ModelSpec;
  readonly weights: Readonly<Record<string, SharedTensor>>;
  /** `[sequences, length, hidden]`; this job's range is replaced by the block's output when `write` is set. */
  readonly x: Place;
  readonly length: number;
  readonly from: number;
  readonly to: number;
  /** Whether the sequences collect squares; the first `momentSequences` of the range collect moments as well. */
  readonly collect: boolean;
  readonly momentSequences: number;
  readonly write: boolean;
  /** Of the linear layers and the moments. int8 only where the machine's are exact. */
  readonly products: Products;
}

/** About what a job takes besides the weights and the stream that threads share. */
export function blockJobBytes(
  { spec, length, collect, momentSequences }: Pick<
    BlockJob,
    "spec" | "length" | "collect" | "momentSequences"
  >,
): number {
  const { hiddenSize, mlp, attention } = spec;
  const weights = Object.values(linearShapes(spec)).reduce((sum, [dOut, dIn]) => sum + dOut * dIn, 0);
  // What stands between two operators at the widest places, x' among it; scores of a query block.
  const width = 6 * hiddenSize + 5 * mlp.intermediateSize + 2 * QUERY_BLOCK * attention.heads;
  // The sums, and the outputs of one chunk: panels of a triangle.
  const squares = Object.values(inputWidths(spec)).reduce((sum, n) => sum + 1.5 * n * n, 0);
  const moments = collect && momentSequences > 0 ? squares : 0;
  return 4 * (weights + Math.max(CHUNK_TOKENS, length) * width + moments);
}

export async function runBlock(job: BlockJob, linalg: LinalgRuntime): Promise<BlockSums> {
  const runner = new ChunkRunner(job, linalg);
  const chunk = Math.max(1, Math.floor(CHUNK_TOKENS / job.length)),
    momentEnd = job.from + job.momentSequences;
  // The first sequence goes in f32 and shows how the codes of the others are to be scaled.
  const exactUntil = job.products === "int8" && await exactInt8(linalg) ? job.from + 1 : job.to;
  for (let from = job.from, to; from < job.to; from = to) {
    const collect: Collect = from < momentEnd ? "moments" : job.collect ? "squares" : "nothing";
    to = Math.min(from + chunk, collect === "moments" ? momentEnd : job.to);
    if (from < exactUntil) to = Math.min(to, exactUntil);
    await runner.run(from, to, collect);
    if (to === exactUntil && to < job.to) runner.useCodes();
  }
  return runner.sums();
}

/** Found out once by each runtime. */
const exact = new WeakMap<LinalgRuntime, Promise<boolean>>();
function exactInt8(linalg: LinalgRuntime): Promise<boolean> {
  if (!exact.has(linalg)) exact.set(linalg, hasExactInt8(linalg));
  return exact.get(linalg)!;
}
