/**
 * Cuts a graph at its `Linear` nodes: a stage is what can run between two rounds of layers, as a model of its own that ONNX
 * Runtime runs, and then the layers that read what is known by then. Layers of one input stand together.
 */
import { OatmillError } from "../../errors.ts";
import { layerNumber, LINEAR_DOMAIN } from "./graph_layers.ts";
import { readBy, shown, writtenBy } from "./nodes.ts";
import { encodeModel, type GraphProto, newMessage, type NodeProto, type ValueInfo } from "./onnx_proto.ts";
import type { OnnxModel } from "./open_onnx.ts";

/** Layers that read one value, prepared in one way. */
export interface LinearStep {
  readonly input: string;
  readonly group: number;
  readonly layers: readonly { readonly layer: number; readonly output: string }[];
}

export interface Stage {
  /** Null where there is nothing to do but layers. */
  readonly segment: Segment | null;
  /** After the segment. */
  readonly steps: readonly LinearStep[];
}

/** Nodes that run without a layer in between. */
export interface Segment {
  readonly nodes: readonly NodeProto[];
  /** Values from the caller, from earlier stages, or from layers. */
  readonly inputs: readonly string[];
  /** Values for later stages, for layers, or for the caller. */
  readonly outputs: readonly string[];
}

const isLinear = ({ domain }: NodeProto): boolean => domain === LINEAR_DOMAIN;

/** @param graph in order (`openOnnx()`) */
export function stagesOf({ graph }: OnnxModel): Stage[] {
  const constants = new Set(graph.initializer.map(({ name }) => name)), groups = inputGroups(graph);
  /** The stage in which a value is written; layers write for the next one. */
  const known = new Map<string, number>();
  const nodes: NodeProto[][] = [], linears: NodeProto[][] = [];
  for (const node of graph.node) {
    const stage = readBy(node).reduce((last, name) => Math.max(last, known.get(name) ?? 0), 0);
    const list = isLinear(node) ? linears : nodes;
    (list[stage] ??= []).push(node);
    for (const name of writtenBy(node)) known.set(name, isLinear(node) ? stage + 1 : stage);
  }
  const wanted = new Set(graph.output.map(({ name }) => name));
  const stages: Stage[] = [];
  for (let s = Math.max(nodes.length, linears.length) - 1; s >= 0; s--) {
    const own = nodes[s] ?? [], steps = stepsOf(linears[s] ?? [], groups);
    for (const { input } of steps) wanted.add(input);
    const written = own.flatMap(writtenBy), inside = new Set(written);
    const inputs = new Set(own.flatMap(readBy).filter((name) => !inside.has(name) && !constants.has(name)));
    const outputs = written.filter((name) => wanted.has(name));
    for (const name of inputs) wanted.add(name);
    stages.unshift({ segment: own.length > 0 ? { nodes: own, inputs: [...inputs], outputs } : null, steps });
  }
  return stages;
}

function stepsOf(linears: readonly NodeProto[], groups: readonly number[]): LinearStep[] {
  const groupOf = (node: NodeProto) => groups[layerNumber(node)];
  const steps = Map.groupBy(linears, (node) => JSON.stringify([node.input[0], groupOf(node)]));
  return [...steps.values()].map((nodes) => ({
    input: nodes[0].input[0],
    group: groupOf(nodes[0]),
    layers: nodes.map((node) => ({ layer: layerNumber(node), output: node.output[0] })),
  }));
}

/**
 * A group for each layer: those whose weights multiply the same values (usually one) share statistics, and the scale of
 * their input's columns.
 */
export function inputGroups({ node }: GraphProto): number[] {
  const inputs: Set<string>[] = [];
  for (const n of node.filter(isLinear)) (inputs[layerNumber(n)] ??= new Set()).add(n.input[0]);
  const keys = inputs.map((names) => JSON.stringify([...names].sort()));
  const different = [...new Set(keys)];
  return keys.map((key) => different.indexOf(key));
}

/** Every value that goes from one stage to another: their types must be known (`withTypes()`). */
export function valuesBetween(stages: readonly Stage[]): string[] {
  const names = stages.flatMap(({ segment, steps }) => [
    ...segment ? [...segment.inputs, ...segment.outputs] : [],
    ...steps.map(({ input }) => input),
  ]);
  return [...new Set(names)];
}

/** The graph with the types of values that go between stages, and no others. */
export function withTypes({ graph, ...model }: OnnxModel, types: readonly ValueInfo[]): OnnxModel {
  const { name, node, initializer, input, output } = graph;
  return {
    ...model,
    graph: newMessage("GraphProto", { name, node, initializer, input, output, valueInfo: types }),
  };
}

/** One segment as a model for ONNX Runtime. @throws {OatmillError} invalid_artifact when a type is not known */
export function segmentModel({ graph, ...model }: OnnxModel, segment: Segment): Uint8Array<ArrayBuffer> {
  const types = new Map([...graph.input, ...graph.valueInfo].map((info) => [info.name, info]));
  const typed = (name: string): ValueInfo => {
    const info = types.get(name);
    if (info?.type) return info;
    throw new OatmillError(
      "invalid_artifact",
      `Cannot run the graph in parts: the type of ${shown(name)} is unknown`,
    );
  };
  const read = new Set(segment.nodes.flatMap(readBy));
  return encodeModel({
    ...model,
    opsetImport: model.opsetImport.filter(({ domain }) => domain !== LINEAR_DOMAIN),
    graph: newMessage("GraphProto", {
      name: "segment",
      node: segment.nodes,
      initializer: graph.initializer.filter(({ name }) => read.has(name)),
      input: segment.inputs.map(typed),
      output: segment.outputs.map((name) => newMessage("ValueInfoProto", { name })),
    }),
  });
}
