/** The only file of the engine that knows onnxruntime-node, which is loaded when a graph is. Workers only: a run blocks its thread. */
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { OatmillError } from "../../errors.ts";
import type { GraphTensor } from "../../models/onnx/graph_tensor.ts";

export type { InferenceSession, Tensor } from "onnxruntime-node";

export class OnnxRuntime {
  private constructor(readonly ort: typeof import("onnxruntime-node")) {}

  static async load(): Promise<OnnxRuntime> {
    return new OnnxRuntime(await import("onnxruntime-node"));
  }

  /** @throws {OatmillError} unsupported_format */
  async session(model: Uint8Array<ArrayBuffer>, threads: number): Promise<InferenceSession> {
    try {
      return await this.ort.InferenceSession.create(model, {
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        graphOptimizationLevel: "all",
        logSeverityLevel: 4, // what fails is thrown
        // Threads that wait by spinning would take the cores from the layers.
        extra: { session: { intra_op: { allow_spinning: "0" } } },
      });
    } catch (cause) {
      const message = `ONNX Runtime cannot load the graph: ${reason(cause)}`;
      throw new OatmillError("unsupported_format", message, null, { cause });
    }
  }

  /** @throws {OatmillError} invalid_request when the graph fails on these values */
  async run(
    session: InferenceSession,
    feeds: Readonly<Record<string, Tensor>>,
  ): Promise<Readonly<Record<string, Tensor>>> {
    try {
      return await session.run(feeds);
    } catch (cause) {
      throw new OatmillError("invalid_request", `The graph fails on this input: ${reason(cause)}`, null, {
        cause,
      });
    }
  }

  tensor({ type, data, dims }: GraphTensor): Tensor {
    // Cast: which array belongs to which type is checked by the constructor.
    return new this.ort.Tensor(type as "float32", data as Float32Array<ArrayBuffer>, dims);
  }
}

const reason = (cause: unknown): string =>
  (cause instanceof Error ? cause.message : String(cause)).trim().slice(0, 500);
