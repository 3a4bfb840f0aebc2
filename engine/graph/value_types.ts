/** Types of a graph's values, as ONNX Runtime infers them. */
import { OatmillError } from "../../errors.ts";
import { graphOfWeights, type LayeredGraph } from "../../models/onnx/graph_layers.ts";
import { encodeModel, newMessage, type ValueInfo } from "../../models/onnx/onnx_proto.ts";
import type { OnnxModel } from "../../models/onnx/open_onnx.ts";
import { stagesOf, valuesBetween, withTypes } from "../../models/onnx/segments.ts";
import type { OnnxRuntime } from "./ort.ts";

/** TensorProto.DataType by ONNX Runtime's name. */
const ELEMENT_TYPES: Readonly<Record<string, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
};

/** The model with more of its values as outputs. */
export function withOutputs(model: OnnxModel, names: readonly string[]): Uint8Array<ArrayBuffer> {
  const { name, node, initializer, input, output, valueInfo } = model.graph;
  const known = new Set([...output, ...input].map((info) => info.name));
  const more = names.filter((n) => !known.has(n)).map((n) => newMessage("ValueInfoProto", { name: n }));
  const graph = { name, node, initializer, input, valueInfo, output: [...output, ...more] };
  return encodeModel({ ...model, graph: newMessage("GraphProto", graph) });
}

/**
 * The graph with `Linear` nodes, ready to be cut: the types of all values that go between its parts are in it.
 * @throws {OatmillError} unsupported_format when ONNX Runtime refuses the graph, or a value is no tensor
 */
export async function typedGraph(layered: LayeredGraph, runtime: OnnxRuntime): Promise<OnnxModel> {
  const { rest } = layered, between = valuesBetween(stagesOf(rest));
  const session = await runtime.session(withOutputs(graphOfWeights(layered), between), 1);
  try {
    const known = new Map(session.outputMetadata.map((value) => [value.name, value]));
    const types = between.flatMap((name): ValueInfo[] => {
      const value = known.get(name);
      if (!value) return []; // an input of the graph, which says its type itself
      if (!value.isTensor || !(value.type in ELEMENT_TYPES)) {
        throw new OatmillError(
          "unsupported_format",
          `Cannot cut the graph: value "${name}" between layers is no tensor`,
        );
      }
      return [valueInfo(name, ELEMENT_TYPES[value.type], value.shape)];
    });
    return withTypes(rest, types);
  } finally {
    await session.release();
  }
}

function valueInfo(name: string, elemType: number, shape: readonly (number | string)[]): ValueInfo {
  const dim = shape.map((n) => ({
    dim: typeof n === "number"
      ? { case: "dimValue" as const, value: BigInt(n) }
      : { case: "dimParam" as const, value: n },
  }));
  return newMessage("ValueInfoProto", { name, type: { tensorType: { elemType, shape: { dim } } } });
}
