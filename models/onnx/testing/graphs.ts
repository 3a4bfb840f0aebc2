/** Small graphs as .onnx files, for tests. */
import { encodeModel, newMessage, type NodeProto, type TensorProto, type ValueInfo } from "../onnx_proto.ts";

/** A dimension without a number is free. */
type Dim = number | string;

export const value = (name: string, dims: readonly Dim[], elemType = 1): ValueInfo =>
  newMessage("ValueInfoProto", {
    name,
    type: {
      tensorType: {
        elemType,
        shape: {
          dim: dims.map((n) => ({
            dim: typeof n === "number"
              ? { case: "dimValue" as const, value: BigInt(n) }
              : { case: "dimParam" as const, value: n },
          })),
        },
      },
    },
  });

export const floats = (name: string, dims: readonly number[], of: (i: number) => number): TensorProto => {
  const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => of(i));
  return newMessage("TensorProto", {
    name,
    dims: dims.map(BigInt),
    dataType: 1,
    rawData: new Uint8Array(data.buffer),
  });
};

/** Attributes: whole numbers are ints (1n) or floats (1), as given. */
type Attributes = Readonly<Record<string, bigint | number | readonly bigint[] | TensorProto>>;

export function node(
  opType: string,
  input: readonly string[],
  output: string,
  attributes: Attributes = {},
): NodeProto {
  const attribute = Object.entries(attributes).map(([name, v]) =>
    newMessage(
      "AttributeProto",
      typeof v === "bigint"
        ? { name, type: 2, i: v }
        : typeof v === "number"
        ? { name, type: 1, f: v }
        : Array.isArray(v)
        ? { name, type: 7, ints: v }
        : { name, type: 4, t: v as TensorProto },
    )
  );
  return newMessage("NodeProto", { opType, name: output, input, output: [output], attribute });
}

export interface SmallGraph {
  readonly node: readonly NodeProto[];
  readonly initializer: readonly TensorProto[];
  readonly input: readonly ValueInfo[];
  readonly output: readonly ValueInfo[];
}

export const onnxFile = (graph: SmallGraph, { ir = 8n, opset = 17n } = {}): Uint8Array<ArrayBuffer> =>
  encodeModel({
    irVersion: ir,
    opsetImport: [{ domain: "", version: opset }],
    functions: [],
    graph: newMessage("GraphProto", { name: "test", ...graph }),
  });

export const VOCABULARY = 30;

/** A classifier of texts: the mean of embeddings where the mask is 1, a layer with tanh, three labels. */
export const textClassifier = (): Uint8Array<ArrayBuffer> =>
  onnxFile({
    input: [value("input_ids", ["batch", "length"], 7), value("attention_mask", ["batch", "length"], 7)],
    initializer: [
      floats("embedding", [VOCABULARY, 24], (i) => Math.sin(i * i)),
      floats("w1", [24, 40], (i) => Math.sin(3 * i * i) / 3),
      floats("b1", [40], (i) => Math.cos(i) / 5),
      floats("w2", [3, 40], (i) => Math.sin(7 * i * i)),
      floats("b2", [3], (i) => i / 10),
    ],
    node: [
      node("Gather", ["embedding", "input_ids"], "tokens"),
      node("Cast", ["attention_mask"], "mask", { to: 1n }),
      node("Constant", [], "last", {
        value: newMessage("TensorProto", {
          dims: [1n],
          dataType: 7,
          rawData: new Uint8Array(BigInt64Array.of(-1n).buffer),
        }),
      }),
      node("Unsqueeze", ["mask", "last"], "mask3"),
      node("Mul", ["tokens", "mask3"], "masked"),
      node("ReduceMean", ["masked"], "mean", { axes: [1n], keepdims: 0n }),
      node("MatMul", ["mean", "w1"], "h0"),
      node("Add", ["b1", "h0"], "h1"),
      node("Tanh", ["h1"], "h2"),
      node("Gemm", ["h2", "w2", "b2"], "logits", { transB: 1n, alpha: 0.5, beta: 2 }),
    ],
    output: [value("logits", ["batch", 3])],
  });
