/** What nodes read and write, and an order in which they can run. */
import { OatmillError } from "../../errors.ts";
import type { AttributeProto, GraphProto, NodeProto, TensorProto } from "./onnx_proto.ts";

const bad = (why: string, cause?: unknown) =>
  new OatmillError("invalid_checkpoint", `Cannot read the graph: ${why}`, null, { cause });

/** A name from a file, for messages. */
export const shown = (name: string): string => JSON.stringify(name.slice(0, 200));

export const attribute = (node: NodeProto, name: string): AttributeProto | undefined =>
  node.attribute.find((a) => a.name === name);

/** Bodies of If, Loop and Scan. */
export const subgraphs = ({ attribute }: NodeProto): GraphProto[] =>
  attribute.flatMap(({ g, graphs }) => g ? [g, ...graphs] : [...graphs]);

/** Values that a node reads: its inputs, and what its subgraphs take from outside. */
export function readBy(node: NodeProto): string[] {
  const outside = subgraphs(node).flatMap((graph) => {
    const inside = new Set([
      ...graph.input.map(({ name }) => name),
      ...graph.initializer.map(({ name }) => name),
      ...graph.node.flatMap(({ output }) => output),
    ]);
    return [...graph.node.flatMap(readBy), ...graph.output.map(({ name }) => name)].filter((n) =>
      !inside.has(n)
    );
  });
  return [...node.input, ...outside].filter((name) => name !== "");
}

export const writtenBy = ({ output }: NodeProto): string[] => output.filter((name) => name !== "");

/** Every node, those of subgraphs too. */
export function* allNodes(nodes: readonly NodeProto[]): Generator<NodeProto> {
  for (const node of nodes) {
    yield node;
    for (const { node: inner } of subgraphs(node)) yield* allNodes(inner);
  }
}

/** Tensors that nodes carry: constants, and initialisers of subgraphs. */
export function* tensorsOf(nodes: readonly NodeProto[]): Generator<TensorProto> {
  for (const node of allNodes(nodes)) {
    for (const { t, tensors } of node.attribute) yield* t ? [t, ...tensors] : tensors;
    for (const { initializer } of subgraphs(node)) yield* initializer;
  }
}

/**
 * The nodes in an order in which each comes after those whose values it reads; the order they have wherever it serves.
 * @throws {OatmillError} invalid_checkpoint: a value that nobody writes, or two do, or a cycle
 */
export function inOrder({ node: nodes, input, initializer }: GraphProto): NodeProto[] {
  const given = new Set([...input, ...initializer].map(({ name }) => name));
  const writers = new Map<string, NodeProto>();
  for (const node of nodes) {
    for (const name of writtenBy(node)) {
      if (writers.has(name) || given.has(name)) throw bad(`value ${shown(name)} is written twice`);
      writers.set(name, node);
    }
  }
  const ordered: NodeProto[] = [], states = new Map<NodeProto, "open" | "done">();
  for (const first of nodes) {
    const stack = [first]; // no recursion: a chain may be as long as the file
    while (stack.length > 0) {
      const node = stack.at(-1)!;
      if (states.get(node) === "done") {
        stack.pop();
        continue;
      }
      const before = readBy(node).flatMap((name): NodeProto[] => {
        if (given.has(name)) return [];
        const writer = writers.get(name);
        if (!writer) throw bad(`value ${shown(name)} is read and never written, the graph is invalid`);
        return states.get(writer) === "done" ? [] : [writer];
      });
      const open = before.find((writer) => states.get(writer) === "open");
      if (open) throw bad(`it has a cycle through ${shown(open.output[0])}`);
      if (before.length > 0) {
        states.set(node, "open");
        for (const writer of before.reverse()) stack.push(writer); // too many for arguments of a call
        continue;
      }
      states.set(node, "done");
      ordered.push(node);
      stack.pop();
    }
  }
  return ordered;
}
