/** The linear layers of a model's blocks, by name and by the input they read. */
import type { Recipe } from "../models/recipe.ts";
import {
  type InputName,
  LINEAR_INPUT,
  type LinearName,
  linearShapes,
  type ModelSpec,
} from "../models/spec.ts";
import { INPUT_NAMES } from "./forward/block_graph.ts";

export const isLinear = (name: string): name is LinearName => name in LINEAR_INPUT;

export const linearNames = (spec: ModelSpec): LinearName[] =>
  Object.keys(linearShapes(spec)).filter(isLinear);

/** Without those that a recipe leaves dense; method `none` treats all alike. */
export const compressedNames = (spec: ModelSpec, { method, dense }: Recipe): LinearName[] =>
  linearNames(spec).filter((name) => method === "none" || !dense.includes(name));

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
  return INPUT_NAMES
    .map((input) => ({ input, names: some.filter((name) => LINEAR_INPUT[name] === input) }))
    .filter(({ names }) => names.length > 0)
    .sort((a, b) => work(b.names) - work(a.names));
}

/** Of the linear layers of a block, in f32. */
export const blockBytes = (spec: ModelSpec): number =>
  4 * Object.values(linearShapes(spec)).reduce((sum, shape) => sum + shape![0] * shape![1], 0);
