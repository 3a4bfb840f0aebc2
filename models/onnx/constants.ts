/** What of a graph is known before it runs, as far as weights are reached by it. */
import { attribute } from "./nodes.ts";
import { type GraphProto, newMessage, type NodeProto, type TensorProto } from "./onnx_proto.ts";
import { ELEMENT, floats, isFloats, shapeOf } from "./tensor_values.ts";

/** A constant weight `[rows, cols]`, row-major. */
export interface ConstantMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array<ArrayBuffer>;
}

const bytesOf = (values: Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>) =>
  new Uint8Array(values.buffer);

const floatTensor = (values: readonly number[], dims: readonly bigint[]): TensorProto =>
  newMessage("TensorProto", { dims, dataType: ELEMENT.float, rawData: bytesOf(Float32Array.from(values)) });
const intTensor = (values: readonly bigint[], dims: readonly bigint[]): TensorProto =>
  newMessage("TensorProto", { dims, dataType: ELEMENT.int64, rawData: bytesOf(BigInt64Array.from(values)) });

/** The value of a Constant node; null for strings, which no layer is made of. */
function constantTensor(node: NodeProto): TensorProto | null {
  const of = (name: string) => attribute(node, name);
  const [value, float, list, int, ints] = ["value", "value_float", "value_floats", "value_int", "value_ints"]
    .map(of);
  if (value?.t) return value.t;
  if (float) return floatTensor([float.f], []);
  if (list) return floatTensor(list.floats, [BigInt(list.floats.length)]);
  if (int) return intTensor([int.i], []);
  return ints ? intTensor(ints.ints, [BigInt(ints.ints.length)]) : null;
}

/** The graph with its Constant nodes as initialisers: every part of it can then have those that it reads. */
export function constantsAsInitializers(graph: GraphProto): GraphProto {
  const initializer = [...graph.initializer], node: NodeProto[] = [];
  for (const n of graph.node) {
    const tensor = n.opType === "Constant" && n.domain === "" ? constantTensor(n) : null;
    if (!tensor) {
      node.push(n);
      continue;
    }
    const { dims, dataType, floatData, int32Data, stringData, int64Data, rawData, doubleData, uint64Data } =
      tensor;
    const values = {
      dims,
      dataType,
      floatData,
      int32Data,
      stringData,
      int64Data,
      rawData,
      doubleData,
      uint64Data,
    };
    initializer.push(newMessage("TensorProto", { name: n.output[0], ...values }));
  }
  const { name, input, output, valueInfo } = graph;
  return newMessage("GraphProto", { name, input, output, valueInfo, initializer, node });
}

/** Finds weights: initialisers, also behind Identity, Cast to float32 or Transpose. */
export class Constants {
  readonly #tensors: ReadonlyMap<string, TensorProto>;
  readonly #writers: ReadonlyMap<string, NodeProto>;

  /** @param graph without Constant nodes */
  constructor(graph: GraphProto) {
    this.#tensors = new Map(graph.initializer.map((t) => [t.name, t]));
    this.#writers = new Map(graph.node.flatMap((n) => n.output.map((name) => [name, n])));
  }

  /** The shape of a value that is a constant matrix of float32, without reading it. */
  shape(name: string): readonly [number, number] | null {
    const { tensor, transposed, cast } = this.#source(name);
    if (!tensor || !isFloats(tensor) || (tensor.dataType !== ELEMENT.float && !cast)) return null;
    const dims = shapeOf(tensor);
    if (dims.length !== 2 || dims.includes(0)) return null;
    return transposed ? [dims[1], dims[0]] : [dims[0], dims[1]];
  }

  /** A value that is a constant matrix of float32; null for all others. */
  matrix(name: string): ConstantMatrix | null {
    const shape = this.shape(name);
    const { tensor, transposed } = this.#source(name), data = shape && floats(tensor!);
    if (!shape || !data) return null;
    const [rows, cols] = shape;
    return { rows, cols, data: transposed ? transposedData(data, cols, rows) : data };
  }

  #source(
    name: string,
  ): { readonly tensor: TensorProto | null; readonly transposed: boolean; readonly cast: boolean } {
    let transposed = false, cast = false;
    for (let at = name;;) {
      const tensor = this.#tensors.get(at), node = this.#writers.get(at);
      if (tensor) return { tensor, transposed, cast };
      if (node?.domain !== "" || !this.#passes(node)) return { tensor: null, transposed, cast };
      if (node.opType === "Transpose") transposed = !transposed;
      cast ||= node.opType === "Cast";
      at = node.input[0];
    }
  }

  #passes(node: NodeProto): boolean {
    if (node.opType === "Identity") return true;
    if (node.opType === "Cast") return Number(attribute(node, "to")?.i) === ELEMENT.float;
    const perm = attribute(node, "perm")?.ints;
    return node.opType === "Transpose" && (perm === undefined || perm.map(Number).join() === "1,0");
  }
}

/** @param data `[rows, cols]` @returns `[cols, rows]` */
export function transposedData(data: Float32Array, rows: number, cols: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = data[i * cols + j];
  return out;
}
