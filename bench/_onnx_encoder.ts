/**
 * An encoder in f32 on ONNX Runtime: one graph of all blocks, with its weights in a file beside it, as an exporter writes
 * it. Its weights are constants of the graph, so the runtime packs them for its own kernels.
 */
import { join } from "node:path";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { addBlock, blockWeights, normalise } from "../compress/forward/block_graph.ts";
import { OnnxGraph } from "../compress/linalg/onnx_graph.ts";
import { seededRandom } from "../compress/random.ts";
import type { LinearKind, ModelSpec } from "../models/spec.ts";

const WEIGHTS = "weights.bin";

export class OnnxEncoder {
  private constructor(
    readonly session: InferenceSession,
    readonly input: Tensor,
    readonly folder: string,
  ) {}

  /** @param tokens length of every input, which is its hidden states: a table's rows are read, as good as free */
  static async open(
    spec: ModelSpec,
    { tokens, threads }: { readonly tokens: number; readonly threads: number },
  ) {
    const folder = await Deno.makeTempDir();
    try {
      await writeModel(spec, tokens, folder);
      const ort = await import("onnxruntime-node");
      const session = await ort.InferenceSession.create(join(folder, "model.onnx"), {
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        graphOptimizationLevel: "all",
      });
      const random = seededRandom(2);
      const x = Float32Array.from({ length: tokens * spec.hiddenSize }, () => random.normal());
      return new OnnxEncoder(session, new ort.Tensor("float32", x, [tokens, spec.hiddenSize]), folder);
    } catch (error) {
      await Deno.remove(folder, { recursive: true });
      throw error;
    }
  }

  /** Hidden states after the final norm, `[tokens x hidden]`. */
  async forward(): Promise<Float32Array> {
    const { y } = await this.session.run({ x: this.input });
    return y.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.session.release();
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function writeModel(spec: ModelSpec, tokens: number, folder: string): Promise<void> {
  const layernorm = spec.norm.kind === "layernorm";
  const weights = blockWeights(
    spec,
    (name) => name.endsWith("Norm.bias") ? layernorm : spec.biases.includes(name.split(".")[0] as LinearKind),
  );
  const values = Object.entries(weights).map(([name, shape]) => ({
    name,
    shape,
    bytes: weightBytes(name, shape),
  }));
  using file = await Deno.open(join(folder, WEIGHTS), { write: true, createNew: true });
  const g = new OnnxGraph();
  let x = g.input("x", [tokens, spec.hiddenSize]);
  for (let i = 0, offset = 0; i < spec.blocks; i++) {
    const prefix = `block.${i}.`;
    // The same values in every block, but each block has its own: they must not share the caches.
    for (const { name, shape, bytes } of values) {
      g.external({ name: prefix + name, type: "f32", shape, file: WEIGHTS, offset, bytes: bytes.length });
      for (let n = 0; n < bytes.length;) n += await file.write(bytes.subarray(n));
      offset += bytes.length;
    }
    x = addBlock(g, x, { spec, weights, sequences: 1, length: tokens, collect: "nothing", prefix });
  }
  // The first block's norm stands in for the final one.
  g.output("y", normalise(g, x, "attnNorm", { spec, weights, prefix: "block.0." }));
  await Deno.writeFile(join(folder, "model.onnx"), g.encode());
}

/** Random values: matrices keep the size of their inputs, norms are near 1, biases near 0. */
function weightBytes(name: string, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  const random = seededRandom(1);
  const mean = name.endsWith("Norm") ? 1 : 0;
  const size = shape.length === 2 ? Math.sqrt(12 / shape[1]) : 0.25;
  const length = shape.reduce((a, b) => a * b, 1);
  return new Uint8Array(Float32Array.from({ length }, () => mean + (random.next() - 0.5) * size).buffer);
}
