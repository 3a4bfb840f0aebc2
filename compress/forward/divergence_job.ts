/** Worker side of KL divergences between two models' next tokens, over a range of the vocabulary. */
import { capped } from "./block_graph.ts";
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { LinalgRuntime, Tensor } from "../linalg/runtime.ts";
import { logAddExp } from "./head_job.ts";

/** Logits held at once, of each model: 512 x 4096 floats are 8 MiB. */
const CHUNK_VOCABULARY = 4096;

export interface DivergenceJob {
  readonly kind: "divergence";
  /** `[tokens, hidden]` of the reference after the final norm, and the log of the sum of exp of its logits `[tokens]`. */
  readonly reference: Float32Array<SharedArrayBuffer>;
  readonly logSums: Float32Array;
  /** `[variants][tokens, hidden]` of the models compared with it. */
  readonly hidden: readonly Float32Array<SharedArrayBuffer>[];
  /** `[vocabulary, hidden]` */
  readonly head: Float32Array<SharedArrayBuffer>;
  readonly width: number;
  /** See `ModelSpec.logitsSoftCap`. */
  readonly softCap?: number;
  /** Variants from..to-1 of `hidden` are this job's. */
  readonly from: number;
  readonly to: number;
}

/** @returns the mean over the tokens of KL(reference || variant), in nats, for each of the job's variants */
export async function runDivergence(job: DivergenceJob, linalg: LinalgRuntime): Promise<number[]> {
  const found: number[] = [];
  for (let i = job.from; i < job.to; i++) found.push(await divergence(job.hidden[i], job, linalg));
  return found;
}

/** KL = sum of p (z_p - z_q) - log Z_p + log Z_q, the sums over the vocabulary in chunks. */
async function divergence(
  hidden: Float32Array<SharedArrayBuffer>,
  { reference, logSums, head, width, softCap }: DivergenceJob,
  linalg: LinalgRuntime,
): Promise<number> {
  const tokens = logSums.length, vocabulary = head.length / width;
  const rows = (data: Float32Array): Tensor => ({
    data: new Float32Array(data),
    shape: [data.length / width, width],
  });
  const z = { data: new Float32Array(logSums), shape: [tokens, 1] };
  const sums = new Float64Array(tokens).fill(-Infinity);
  let cross = 0;
  for (let v = 0; v < vocabulary; v += CHUNK_VOCABULARY) {
    const w = rows(head.subarray(v * width, Math.min(vocabulary, v + CHUNK_VOCABULARY) * width));
    const lse = new Float32Array(tokens), gap = new Float32Array(tokens);
    const inputs = { p: rows(reference), q: rows(hidden), w, z };
    const outputs = { lse: { data: lse, shape: [tokens] }, gap: { data: gap, shape: [tokens] } };
    await linalg.run(`divergence ${softCap}`, () => divergenceGraph(softCap), inputs, outputs);
    for (let i = 0; i < tokens; i++) {
      sums[i] = logAddExp(sums[i], lse[i]);
      cross += gap[i];
    }
  }
  for (let i = 0; i < tokens; i++) cross += sums[i] - logSums[i];
  return cross / tokens;
}

function divergenceGraph(softCap?: number): OnnxGraph {
  const g = new OnnxGraph();
  const p = g.input("p", ["tokens", "hidden"]), q = g.input("q", ["tokens", "hidden"]);
  const w = g.input("w", ["vocab", "hidden"]), z = g.input("z", ["tokens", 1]);
  const logits = (x: string) => capped(g, g.node("Gemm", [x, w], { transB: { int: 1 } }), softCap);
  const zp = logits(p), zq = logits(q);
  g.output("lse", g.node("ReduceLogSumExp", [zq], { axes: { ints: [1] }, keepdims: { int: 0 } }));
  const weighted = g.node("Mul", [g.node("Exp", [g.node("Sub", [zp, z])]), g.node("Sub", [zp, zq])]);
  g.output("gap", g.node("ReduceSum", [weighted, g.integers([1])], { keepdims: { int: 0 } }));
  return g;
}
