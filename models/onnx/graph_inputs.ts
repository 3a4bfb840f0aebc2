/** What a graph reads, and how images and texts become its inputs. */
import { OatmillError } from "../../errors.ts";
import type { Pixels, TokenInput } from "../classifier.ts";
import type { GraphTensors } from "./graph_tensor.ts";
import { shown } from "./nodes.ts";
import type { GraphProto, ValueInfo } from "./onnx_proto.ts";
import { ELEMENT } from "./tensor_values.ts";

export interface GraphInput {
  readonly name: string;
  /** TensorProto.DataType */
  readonly elemType: number;
  /** Null: free. */
  readonly dims: readonly (number | null)[];
}

/** Images `[n, 3, height, width]`, token ids `[n, length]` and what goes with them, or anything else. */
export type GraphReads = "images" | "text" | "tensors";

/** By name, as exporters of transformers call them: what stands there for a token. */
const TOKEN_INPUTS: Readonly<Record<string, (input: TokenInput) => readonly number[]>> = {
  input_ids: ({ ids }) => ids,
  attention_mask: ({ ids }) => ids.map(() => 1),
  token_type_ids: ({ ids, types }) => types ?? ids.map(() => 0),
  position_ids: ({ ids }) => ids.map((_, i) => i),
};

/** Values of one input, as far as the graph fixes them: an image of 4096 x 4096 pixels has fewer, and no text so many tokens. */
const MAX_FLOATS = 2 ** 26, MAX_OTHERS = 2 ** 20;

/** @throws {OatmillError} unsupported_format: an input that is no tensor, of unknown dimensions, or larger than any is */
export function graphInputs({ input }: Pick<GraphProto, "input">): GraphInput[] {
  return input.map(({ name, type }: ValueInfo) => {
    const tensor = type?.tensorType;
    if (!tensor?.shape) {
      throw new OatmillError(
        "unsupported_format",
        `Input ${shown(name)} of the graph must be a tensor of known rank`,
      );
    }
    const dims = tensor.shape.dim.map(({ dim }) =>
      dim.case === "dimValue" && dim.value > 0n ? Number(dim.value) : null
    );
    const values = dims.reduce<number>((product, n) => product * (n ?? 1), 1);
    const most = tensor.elemType === ELEMENT.float ? MAX_FLOATS : MAX_OTHERS;
    if (values > most) {
      throw new OatmillError(
        "unsupported_format",
        `Input ${shown(name)} of the graph has ${values} values, at most ${most} are read`,
      );
    }
    return { name, elemType: tensor.elemType, dims };
  });
}

export function graphReads(inputs: readonly GraphInput[]): GraphReads {
  const [first] = inputs;
  const isImage = ({ elemType, dims }: GraphInput) =>
    elemType === ELEMENT.float && dims.length === 4 && (dims[1] === 3 || dims[1] === null);
  if (inputs.length === 1 && isImage(first)) return "images";
  const isTokens = ({ name, elemType, dims }: GraphInput) =>
    name in TOKEN_INPUTS && elemType === ELEMENT.int64 && dims.length === 2;
  return inputs.some(({ name }) => name === "input_ids") && inputs.every(isTokens) ? "text" : "tensors";
}

/**
 * One image as the graph's input.
 * @throws {OatmillError} invalid_request when the graph wants another size
 */
export function imageFeeds(inputs: readonly GraphInput[], { width, height, data }: Pixels): GraphTensors {
  const [{ name, dims }] = inputs, shape = [1, 3, height, width];
  checkDims(name, dims, shape);
  return { [name]: { type: "float32", dims: shape, data: new Float32Array(data) } };
}

/** One text as the graph's inputs. @throws {OatmillError} invalid_request when the graph wants another length */
export function tokenFeeds(inputs: readonly GraphInput[], input: TokenInput): GraphTensors {
  return Object.fromEntries(inputs.map(({ name, dims }) => {
    const shape = [1, input.ids.length];
    checkDims(name, dims, shape);
    const data = BigInt64Array.from(TOKEN_INPUTS[name](input), BigInt);
    return [name, { type: "int64", dims: shape, data }];
  }));
}

function checkDims(name: string, dims: GraphInput["dims"], shape: readonly number[]): void {
  if (dims.length === shape.length && dims.every((n, i) => n === null || n === shape[i])) return;
  const wanted = dims.map((n) => n ?? "any").join(", ");
  throw new OatmillError(
    "invalid_request",
    `The graph's input ${shown(name)} must be [${wanted}], not [${shape.join(", ")}]`,
  );
}
