/**
 * Reverse-mode derivation of a graph: one sweep from its outputs back to what is wanted, which adds the steps that compute
 * gradients to the same graph. The forward steps stay, so gradients read activations that are recomputed beside them.
 */
import type { OnnxGraph, OnnxNode } from "../linalg/onnx_graph.ts";
import { RULES } from "./rules.ts";
import { ShapedGraph } from "./shaped_graph.ts";

export interface DeriveOptions {
  /** By value of the graph: the gradient that the sweep begins with, a value of the same shape. */
  readonly seeds: ReadonlyMap<string, string>;
  /** Inputs whose gradients are wanted; nothing is computed for others. */
  readonly wanted: readonly string[];
  /** Of dimensions that the graph's inputs name. */
  readonly sizes?: Readonly<Record<string, number>>;
}

/** What one reader of a value gives to the value's gradient. */
export type Contribution =
  /** A value of the same shape, or one to be repeated to it. */
  | { readonly kind: "value"; readonly value: string; readonly rowDots?: RowDots }
  /** A matrix product that can be added to a matrix on its way. */
  | { readonly kind: "product"; readonly addTo: (sum?: string) => string }
  /** The gradient of entries from..to-1 of an axis; the others have none. */
  | {
    readonly kind: "slice";
    readonly value: string;
    readonly axis: number;
    readonly from: number;
    readonly to: number;
  };

type Slice = Extract<Contribution, { kind: "slice" }>;

/** The sums over the last axis, which stays with size 1, of gradient times value, where they are to be had for less than that. */
export type RowDots = () => string;

/** Gradient of a value: of its shape, or to be repeated to it. */
export interface Gradient {
  readonly value: string;
  readonly rowDots?: RowDots;
}

/** What a rule sees of the sweep. */
export interface Sweep {
  readonly g: ShapedGraph;
  /** Whether a gradient of this value leads to something wanted. */
  readonly needs: (value: string) => boolean;
  readonly give: (value: string, contribution: Contribution | string) => void;
}

/** Gives gradients to the inputs of a node that need them. */
export type Rule = (node: OnnxNode, sweep: Sweep, dy: Gradient) => void;

/** Outputs without a gradient: of TopK the places of what it chose. */
const CONSTANT_OUTPUTS: Readonly<Record<string, readonly number[]>> = { TopK: [1] };
/** Operators whose answers change in steps, or not at all, with their inputs. */
const STEPS: ReadonlySet<string> = new Set(["Shape", "Equal", "NonZero", "Cast", "Sign"]);

/** Values that depend on what is wanted. */
function dependents(steps: readonly OnnxNode[], wanted: readonly string[]): Set<string> {
  const found = new Set(wanted);
  for (const { op, inputs, outputs } of steps) {
    if (STEPS.has(op) || !inputs.some((name) => found.has(name))) continue;
    outputs.forEach((name, i) => CONSTANT_OUTPUTS[op]?.includes(i) || found.add(name));
  }
  return found;
}

class ReverseSweep implements Sweep {
  readonly #given = new Map<string, Contribution[]>();

  constructor(readonly g: ShapedGraph, readonly dependents: ReadonlySet<string>) {}

  needs = (value: string): boolean => this.dependents.has(value);

  give = (value: string, contribution: Contribution | string): void => {
    if (!this.needs(value)) return;
    const given = this.#given.get(value) ?? [];
    this.#given.set(value, given);
    given.push(typeof contribution === "string" ? { kind: "value", value: contribution } : contribution);
  };

  /** The sum of what was given; null: nothing depends on the value. */
  total(value: string): Gradient | null {
    const given = this.#given.get(value);
    if (!given) return null;
    const [first] = given;
    if (given.length === 1 && first.kind === "value") return first;
    const { g } = this, values = given.flatMap((c) => c.kind === "value" ? [c.value] : []);
    const slices = given.filter((c) => c.kind === "slice");
    for (const axis of new Set(slices.map((slice) => slice.axis))) {
      values.push(this.#assemble(value, axis, slices.filter((slice) => slice.axis === axis)));
    }
    let sum = values.length > 0 ? values.reduce(g.add) : undefined;
    for (const product of given) {
      if (product.kind === "product") sum = product.addTo(sum && g.expandLike(sum, value));
    }
    return { value: sum! };
  }

  /** Slices of one axis side by side: where some overlap their sum, where there is none zeros. */
  #assemble(value: string, axis: number, slices: readonly Slice[]): string {
    const { g } = this, shape = g.shape(value), size = Number(shape[axis]);
    const bounds = [...new Set([0, size, ...slices.flatMap(({ from, to }) => [from, to])])].sort((a, b) =>
      a - b
    );
    const parts = bounds.slice(1).map((to, i) => {
      const from = bounds[i], over = slices.filter((slice) => slice.from <= from && to <= slice.to);
      if (over.length === 0) return g.zeros(shape.map((d, j) => j === axis ? to - from : Number(d)));
      return over.map((slice) => g.slice(slice.value, axis, from - slice.from, to - slice.from)).reduce(
        g.add,
      );
    });
    return g.concat(parts, axis);
  }
}

/**
 * Adds the gradients to the graph. Sums are taken over everything that was broadcast.
 * @returns by wanted input its gradient's value, of the input's shape
 * @throws {RangeError} for an operator without a rule, and for a wanted input on which no seed depends
 */
export function derive(
  graph: OnnxGraph,
  { seeds, wanted, sizes }: DeriveOptions,
): ReadonlyMap<string, string> {
  const steps = [...graph.steps], g = new ShapedGraph(graph, sizes);
  const sweep = new ReverseSweep(g, dependents(steps, wanted));
  for (const [value, gradient] of seeds) sweep.give(value, gradient);
  for (const node of steps.reverse()) {
    const dy = sweep.needs(node.outputs[0]) && sweep.total(node.outputs[0]);
    if (!dy) continue;
    const rule = RULES[node.op];
    if (!rule) throw new RangeError(`ONNX operator "${node.op}" has no gradient`);
    rule(node, sweep, dy);
  }
  return new Map(wanted.map((name) => {
    const found = sweep.total(name);
    if (!found) throw new RangeError(`No output depends on "${name}"`);
    return [name, g.expandLike(found.value, name)];
  }));
}
