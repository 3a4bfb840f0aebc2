/**
 * The linear layers of a graph, and the graph without them: MatMul and Gemm whose second operand is a constant matrix in
 * float32 become nodes `Linear` of the domain `ai.oatmill`, which say what number of layer they stand for. Biases (Add, or
 * the third operand of Gemm) stay with the graph.
 */
import type { Shape2 } from "../../kernels/layout.ts";
import { OatmillError } from "../../errors.ts";
import { Constants, constantsAsInitializers, transposedData } from "./constants.ts";
import { attribute, readBy, shown, writtenBy } from "./nodes.ts";
import { newMessage, type NodeProto, type TensorProto } from "./onnx_proto.ts";
import type { OnnxModel } from "./open_onnx.ts";
import { ELEMENT } from "./tensor_values.ts";

export const LINEAR_DOMAIN = "ai.oatmill";
/** AttributeProto.AttributeType */
const INT = 2;

/** One constant weight and every place where it is a layer. */
export interface GraphLayer {
  /** Of its first node. */
  readonly name: string;
  /** `[dOut, dIn]` */
  readonly shape: Shape2;
  /** Values that it multiplies, `[..., dIn]`; more than one where nodes share the weight. */
  readonly inputs: readonly string[];
  /** Reads the weight, `[dOut, dIn]`. @throws {OatmillError} non_finite_weights */
  readonly read: () => Float32Array<ArrayBuffer>;
}

export interface LayeredGraph {
  /** In the order of their first use; a `Linear` node's attribute `layer` is the number here. */
  readonly layers: readonly GraphLayer[];
  /** With `Linear` nodes, and without what nothing reads any more. */
  readonly rest: OnnxModel;
}

/** How a node multiplies by its weight. */
interface Product {
  readonly node: NodeProto;
  readonly input: string;
  readonly weight: string;
  /** The weight stands as `[dOut, dIn]`. */
  readonly outIn: boolean;
  readonly alpha: number;
}

const number = (node: NodeProto, name: string, otherwise: number): number =>
  attribute(node, name)?.f ?? otherwise;
const flag = (node: NodeProto, name: string): boolean => (attribute(node, name)?.i ?? 0n) !== 0n;

function productOf(node: NodeProto, constants: Constants): Product | null {
  const [input, weight] = node.input;
  if (node.domain !== "" || !constants.shape(weight ?? "") || constants.shape(input)) return null;
  if (node.opType === "MatMul") return { node, input, weight, outIn: false, alpha: 1 };
  if (node.opType !== "Gemm" || flag(node, "transA")) return null;
  return { node, input, weight, outIn: flag(node, "transB"), alpha: number(node, "alpha", 1) };
}

/**
 * @param options.smallest layers of fewer weights stay nodes of the graph
 * @throws {OatmillError} unsupported_format when the graph itself uses what stands for layers
 */
export function findLayers(model: OnnxModel, { smallest }: { readonly smallest: number }): LayeredGraph {
  if (model.graph.node.some(({ domain }) => domain === LINEAR_DOMAIN)) {
    throw new OatmillError(
      "unsupported_format",
      `Operators of domain "${LINEAR_DOMAIN}" cannot be compressed again`,
    );
  }
  const graph = constantsAsInitializers(model.graph), constants = new Constants(graph);
  const layers: (GraphLayer & { inputs: string[] })[] = [], numbers = new Map<string, number>();
  const added: TensorProto[] = [];
  const node = graph.node.flatMap((n): NodeProto[] => {
    const product = productOf(n, constants);
    const shape = product && constants.shape(product.weight)!;
    if (!product || shape![0] * shape![1] < smallest) return [n];
    const key = JSON.stringify([product.weight, product.outIn, product.alpha]);
    const index = numbers.get(key) ?? layers.length;
    if (index === layers.length) layers.push({ ...layerOf(product, constants), inputs: [] });
    numbers.set(key, index);
    if (!layers[index].inputs.includes(product.input)) layers[index].inputs.push(product.input);
    return replacement(product, index, added);
  });
  const rest = { ...graph, initializer: [...graph.initializer, ...added], node };
  return { layers, rest: { ...model, opsetImport: withLinear(model), graph: withoutUnread(rest) } };
}

const withLinear = ({ opsetImport }: OnnxModel) => [...opsetImport, { domain: LINEAR_DOMAIN, version: 1n }];

function layerOf({ node, weight, outIn, alpha }: Product, constants: Constants): Omit<GraphLayer, "inputs"> {
  const [a, b] = constants.shape(weight)!;
  const name = node.name || node.output[0];
  const read = () => {
    const { rows, cols, data } = constants.matrix(weight)!;
    const found = data.findIndex((x) => !Number.isFinite(x));
    if (found >= 0) {
      throw new OatmillError(
        "non_finite_weights",
        `Cannot compress layer ${shown(name)}: weight ${shown(weight)} holds ${
          data[found]
        }, which is not finite`,
      );
    }
    const W = outIn ? data : transposedData(data, rows, cols);
    return alpha === 1 ? W : W.map((x) => alpha * x);
  };
  return { name, shape: outIn ? [a, b] : [b, a], read };
}

/** The `Linear` node, and for Gemm what adds its third operand. */
function replacement({ node, input }: Product, layer: number, added: TensorProto[]): NodeProto[] {
  const [y] = node.output, bias = node.opType === "Gemm" ? node.input[2] : undefined;
  const linear = (output: string) =>
    newMessage("NodeProto", {
      opType: "Linear",
      domain: LINEAR_DOMAIN,
      name: node.name,
      input: [input],
      output: [output],
      attribute: [newMessage("AttributeProto", { name: "layer", type: INT, i: BigInt(layer) })],
    });
  if (!bias) return [linear(y)];
  const product = `${y}/oatmill/product`, beta = number(node, "beta", 1);
  const op = (opType: string, inputs: string[], output: string) =>
    newMessage("NodeProto", { opType, input: inputs, output: [output] });
  if (beta === 1) return [linear(product), op("Add", [product, bias], y)];
  const factor = `${y}/oatmill/beta`, scaled = `${y}/oatmill/bias`;
  const rawData = new Uint8Array(Float32Array.of(beta).buffer);
  added.push(newMessage("TensorProto", { name: factor, dataType: ELEMENT.float, rawData }));
  return [op("Mul", [bias, factor], scaled), linear(product), op("Add", [product, scaled], y)];
}

/** Without the nodes, values and descriptions that no output depends on. */
function withoutUnread(graph: OnnxModel["graph"]): OnnxModel["graph"] {
  const read = new Set(graph.output.map(({ name }) => name));
  const kept = graph.node.toReversed().filter((node) => {
    const needed = writtenBy(node).some((name) => read.has(name));
    if (needed) { for (const name of readBy(node)) read.add(name); }
    return needed;
  });
  const { name, input, output, valueInfo } = graph;
  return newMessage("GraphProto", {
    name,
    input,
    output,
    valueInfo,
    initializer: graph.initializer.filter((tensor) => read.has(tensor.name)),
    node: kept.reverse(),
  });
}

const weightName = (layer: number): string => `layer.${layer}.weight`;

/** `rest` with each layer a MatMul by a value `layer.I.weight` `[dIn, dOut]`, which is still to be given. */
function withMatMuls({ rest }: LayeredGraph): OnnxModel {
  const { graph, opsetImport, ...model } = rest, { name, input, output, valueInfo, initializer } = graph;
  const node = graph.node.map((n) => {
    if (n.domain !== LINEAR_DOMAIN) return n;
    const inputs = [n.input[0], weightName(layerNumber(n))];
    return newMessage("NodeProto", { opType: "MatMul", name: n.name, input: inputs, output: n.output });
  });
  return {
    ...model,
    opsetImport: opsetImport.filter(({ domain }) => domain !== LINEAR_DOMAIN),
    graph: newMessage("GraphProto", { name, input, output, valueInfo, initializer, node }),
  };
}

/** The graph with its layers as they came: every value of `rest` is there, and ONNX Runtime runs it whole. */
export function denseGraph(layered: LayeredGraph): OnnxModel {
  const { graph, ...model } = withMatMuls(layered);
  const weights = layered.layers.map(({ shape: [dOut, dIn], read }, i) =>
    newMessage("TensorProto", {
      name: weightName(i),
      dims: [BigInt(dIn), BigInt(dOut)],
      dataType: ELEMENT.float,
      rawData: new Uint8Array(transposedData(read(), dOut, dIn).buffer),
    })
  );
  const { name, input, output, valueInfo, node } = graph, initializer = [...graph.initializer, ...weights];
  return { ...model, graph: newMessage("GraphProto", { name, input, output, valueInfo, node, initializer }) };
}

/** The same with weights as inputs: types and shapes follow from it, and nothing is read or copied. */
export function graphOfWeights(layered: LayeredGraph): OnnxModel {
  const { graph, ...model } = withMatMuls(layered);
  const weights = layered.layers.map(({ shape: [dOut, dIn] }, i) => {
    const dim = [dIn, dOut].map((n) => ({ dim: { case: "dimValue" as const, value: BigInt(n) } }));
    return newMessage("ValueInfoProto", {
      name: weightName(i),
      type: { tensorType: { elemType: ELEMENT.float, shape: { dim } } },
    });
  });
  const { name, output, valueInfo, node, initializer } = graph, input = [...graph.input, ...weights];
  return { ...model, graph: newMessage("GraphProto", { name, input, output, valueInfo, node, initializer }) };
}

/** Which layer a `Linear` node stands for. */
export const layerNumber = (node: NodeProto): number => Number(attribute(node, "layer")?.i ?? -1n);
