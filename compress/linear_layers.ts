/** The linear layers of a model's blocks, by name and by the input they read. */
import type { Recipe } from "../models/recipe.ts";
import {
  type InputName,
  inputNames,
  inputOf,
  LINEAR_INPUT,
  linearKind,
  type LinearName,
  linearNames,
  linearShapes,
  type ModelSpec,
} from "../models/spec.ts";

/** Whether a weight of a block is a linear layer, not a norm, a bias or a router. */
export const isLinear = (name: string): name is LinearName => linearKind(name as LinearName) in LINEAR_INPUT;

/** Without those that a recipe leaves dense; method `none` treats all alike. */
export const compressedNames = (spec: ModelSpec, { method, dense }: Recipe): LinearName[] =>
  linearNames(spec).filter((name) => method === "none" || !dense.includes(linearKind(name)));

/** Linear layers that share an input. */
export interface InputGroup {
  readonly input: InputName;
  readonly names: readonly LinearName[];
}

/** Some of the layers by the input they share, the most work (about dOut dIn²) first. */
export function inputGroups(spec: ModelSpec, some: readonly LinearName[]): InputGroup[] {
  const shapes = linearShapes(spec);
  const work = (names: readonly LinearName[]) =>
    names.reduce((sum, name) => sum + shapes[name]![0] * shapes[name]![1] ** 2, 0);
  const byInput = Map.groupBy(some, inputOf);
  return inputNames(spec).filter((input) => byInput.has(input))
    .map((input) => ({ input, names: byInput.get(input)! }))
    .sort((a, b) => work(b.names) - work(a.names));
}

/** Of the linear layers of a block, in f32. */
export const blockBytes = (spec: ModelSpec): number =>
  4 * Object.values(linearShapes(spec)).reduce((sum, shape) => sum + shape![0] * shape![1], 0);
