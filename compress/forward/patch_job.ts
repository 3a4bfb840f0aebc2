/** Worker side of an image's hidden states: its patches through their projection. */
import { OnnxGraph } from "../linalg/onnx_graph.ts";
import type { LinalgRuntime } from "../linalg/runtime.ts";

export interface PatchJob {
  readonly kind: "patches";
  /** `[rows, 3 x size x size]` */
  readonly patches: Float32Array<SharedArrayBuffer>;
  /** `[hidden, 3 x size x size]` */
  readonly projection: Float32Array<SharedArrayBuffer>;
  /** `[rows, hidden]` */
  readonly added: Float32Array<SharedArrayBuffer>;
  /** hidden */
  readonly width: number;
}

/** @returns patches times the projection plus what is added `[rows, hidden]` */
export async function runPatches(
  { patches, projection, added, width }: PatchJob,
  linalg: LinalgRuntime,
): Promise<Float32Array<ArrayBuffer>> {
  const rows = added.length / width, values = projection.length / width;
  const inputs = {
    x: { data: new Float32Array(patches), shape: [rows, values] },
    w: { data: new Float32Array(projection), shape: [width, values] },
    b: { data: new Float32Array(added), shape: [rows, width] },
  };
  const y = { data: new Float32Array(rows * width), shape: [rows, width] };
  await linalg.run("patches", patchGraph, inputs, { y });
  return y.data;
}

function patchGraph(): OnnxGraph {
  const g = new OnnxGraph();
  const x = g.input("x", ["rows", "values"]), w = g.input("w", ["hidden", "values"]);
  const b = g.input("b", ["rows", "hidden"]);
  g.output("y", g.node("Gemm", [x, w, b], { transB: { int: 1 } }));
  return g;
}
