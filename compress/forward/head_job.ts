/** Worker side of the dense perplexity: log-sum-exp of the logits over a range of the vocabulary. */
import { capped } from "./block_graph.ts";
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { LinalgRuntime } from "../linalg/runtime.ts";

/** Logits held at once: 512 x 8192 floats are 16 MiB. */
const CHUNK_TOKENS = 512;
const CHUNK_VOCABULARY = 8192;

export interface HeadJob {
  readonly kind: "head";
  /** `[tokens, hidden]`, after the final norm. */
  readonly hidden: Float32Array<SharedArrayBuffer>;
  /** `[vocab, hidden]` */
  readonly head: Float32Array<SharedArrayBuffer>;
  readonly width: number;
  /** See `ModelSpec.logitsSoftCap`. */
  readonly softCap?: number;
  readonly from: number;
  readonly to: number;
}

/** @returns `[tokens]` log of the sum of exp(logit) over the vocabulary from..to-1 */
export async function runHead(job: HeadJob, linalg: LinalgRuntime): Promise<Float64Array<ArrayBuffer>> {
  const { hidden, head, width, softCap } = job, tokens = hidden.length / width;
  const sums = new Float64Array(tokens).fill(-Infinity);
  for (let v = job.from; v < job.to; v += CHUNK_VOCABULARY) {
    const vEnd = Math.min(v + CHUNK_VOCABULARY, job.to);
    const w = { data: new Float32Array(head.subarray(v * width, vEnd * width)), shape: [vEnd - v, width] };
    for (let t = 0; t < tokens; t += CHUNK_TOKENS) {
      const tEnd = Math.min(t + CHUNK_TOKENS, tokens);
      const x = {
        data: new Float32Array(hidden.subarray(t * width, tEnd * width)),
        shape: [tEnd - t, width],
      };
      const lse = new Float32Array(tEnd - t);
      const outputs = { lse: { data: lse, shape: [tEnd - t] } };
      await linalg.run(`head ${softCap}`, () => headGraph(softCap), { x, w }, outputs);
      for (let i = 0; i < lse.length; i++) sums[t + i] = logAddExp(sums[t + i], lse[i]);
    }
  }
  return sums;
}

function headGraph(softCap?: number): OnnxGraph {
  const g = new OnnxGraph();
  const x = g.input("x", ["tokens", "hidden"]), w = g.input("w", ["vocab", "hidden"]);
  const logits = capped(g, g.node("Gemm", [x, w], { transB: { int: 1 } }), softCap);
  g.output("lse", g.node("ReduceLogSumExp", [logits], { axes: { ints: [1] }, keepdims: { int: 0 } }));
  return g;
}

export function logAddExp(a: number, b: number): number {
  const most = Math.max(a, b);
  return most === -Infinity ? most : most + Math.log(Math.exp(a - most) + Math.exp(b - most));
}
