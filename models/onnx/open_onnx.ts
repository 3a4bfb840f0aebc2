/**
 * Opens `.onnx` files: parsed, checked, external values brought in. What comes out runs from memory, so that no path in a
 * file is ever handed on. Anyone may call it, on any thread.
 */
import { basename, dirname } from "node:path";
import { OatmillError } from "../../errors.ts";
import { RandomAccessFile } from "../formats/random_access_file.ts";
import { ExternalData, isExternal } from "./external_data.ts";
import { allNodes, inOrder, shown, subgraphs, tensorsOf } from "./nodes.ts";
import { decodeModel, type GraphProto, type ModelProto, newMessage, type TensorProto } from "./onnx_proto.ts";
import { checkTensor } from "./tensor_values.ts";

/** A model is one protobuf message in memory, which has 2 GiB at most; as large is what several copies leave room for. */
const MAX_BYTES = 2 ** 30;

/** ai.onnx versions that onnxruntime-node 1.30 runs. */
const OPSETS = { least: 7, most: 26 } as const;
/** Operators that onnxruntime-node has, by domain; others must be functions of the file. */
const DOMAINS: readonly string[] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/** A model whose values are all in memory and whose nodes stand in order. */
export interface OnnxModel extends ModelProto {
  readonly graph: GraphProto;
}

/** @throws {OatmillError} invalid_checkpoint, unsupported_format, too_large, non_finite_weights */
export async function openOnnx(
  path: string,
  options: { readonly maxBytes?: number } = {},
): Promise<OnnxModel> {
  const { maxBytes = MAX_BYTES } = options;
  const name = basename(path);
  const bytes = await readAll(path, maxBytes);
  try {
    const model = parse(bytes);
    using external = new ExternalData(dirname(path), maxBytes - bytes.length);
    return await checked(model, external);
  } catch (cause) {
    if (!(cause instanceof OatmillError)) throw cause;
    throw new OatmillError(cause.code, `Cannot open "${name}": ${cause.message}`, null, { cause });
  }
}

async function readAll(path: string, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  using file = await RandomAccessFile.open(path);
  const { sizeBytes } = file;
  if (sizeBytes === 0) {
    throw new OatmillError("invalid_checkpoint", `Cannot open "${basename(path)}": it is empty`);
  }
  if (sizeBytes > maxBytes) {
    throw new OatmillError(
      "too_large",
      `Cannot open "${
        basename(path)
      }": it has ${sizeBytes} bytes, at most ${maxBytes} are read; a larger model can be ` +
        "compressed from its safetensors checkpoint",
    );
  }
  return await file.read(0, sizeBytes);
}

const bad = (why: string, cause?: unknown) => new OatmillError("invalid_checkpoint", why, null, { cause });
const unsupported = (why: string) => new OatmillError("unsupported_format", why);

/** A graph that was written here, checked and in order. @throws {OatmillError} invalid_checkpoint */
export const decodeGraph = (bytes: Uint8Array): OnnxModel => parse(bytes);

function parse(bytes: Uint8Array): OnnxModel {
  let model: ModelProto;
  try {
    model = decodeModel(bytes);
  } catch (cause) {
    throw bad("it cannot be parsed as a protobuf message of ONNX: truncated, or no such file", cause);
  }
  const { graph } = model;
  if (!graph || graph.node.length === 0) throw bad("it is no valid ONNX model: there is no graph with nodes");
  return { ...pick(model), graph };
}

/** Since this version initialisers need not be inputs as well: none is one here. */
const IR_VERSION = 4n;

/** What a model is made of, without what is only said about it. */
const pick = ({ irVersion, opsetImport, functions }: ModelProto) => ({
  irVersion: irVersion < IR_VERSION ? IR_VERSION : irVersion,
  opsetImport,
  functions,
});

async function checked(model: OnnxModel, external: ExternalData): Promise<OnnxModel> {
  const { graph, functions } = model;
  checkOperators(model);
  checkDefaults(functions);
  const nested = [graph.node, ...functions.map(({ node }) => node)];
  for (const nodes of nested) {
    for (const tensor of tensorsOf(nodes)) {
      // Exporters write large constants as initialisers.
      if (isExternal(tensor)) {
        throw unsupported(`External data of the constant ${shown(tensor.name)} inside a node is not read`);
      }
      checkTensor(tensor);
    }
  }
  const initializer: TensorProto[] = [], names = new Set<string>();
  for (const tensor of graph.initializer) {
    if (tensor.name === "" || names.has(tensor.name)) {
      throw bad(`Initializer ${shown(tensor.name)} is there twice, or nameless`);
    }
    names.add(tensor.name);
    const whole = isExternal(tensor) ? await external.read(tensor) : tensor;
    checkTensor(whole);
    initializer.push(whole);
  }
  const input = graph.input.filter(({ name }) => !names.has(name));
  const { name, output, valueInfo } = graph;
  const rest = { name, output, valueInfo, initializer, input };
  const node = inOrder({ ...graph, ...rest });
  checkOutputs(graph, new Set([...names, ...input.map((i) => i.name), ...node.flatMap((n) => n.output)]));
  return { ...pick(model), graph: newMessage("GraphProto", { ...rest, node }) };
}

/** Tensors there could lie in files anywhere: ONNX Runtime would read them, and nobody here has. */
function checkDefaults(functions: ModelProto["functions"]): void {
  for (const { name, attributeProto } of functions) {
    const holder = attributeProto.find(({ t, g, tensors, graphs, sparseTensor, sparseTensors }) =>
      t || g || tensors.length + graphs.length + sparseTensor.length + sparseTensors.length > 0
    );
    if (!holder) continue;
    throw unsupported(
      `Attribute ${shown(holder.name)} of function ${shown(name)} has a tensor or a graph as its default: ` +
        "write it into a Constant node",
    );
  }
}

function checkOutputs({ output }: GraphProto, known: ReadonlySet<string>): void {
  if (output.length === 0) throw bad("The graph has no output, it is invalid");
  const missing = output.find(({ name }) => !known.has(name));
  if (missing) throw bad(`Output ${shown(missing.name)} is never written, the graph is invalid`);
}

function checkOperators({ opsetImport, functions, graph }: OnnxModel): void {
  const opset = opsetImport.find(({ domain }) => domain === "" || domain === "ai.onnx")?.version;
  if (opset !== undefined && (opset < OPSETS.least || opset > OPSETS.most)) {
    throw unsupported(
      `Opset version ${opset} is not run: must be ${OPSETS.least} to ${OPSETS.most}; export it again`,
    );
  }
  const domains = new Set([...DOMAINS, ...functions.map(({ domain }) => domain)]);
  const sparse = (of: GraphProto) => of.sparseInitializer.length > 0;
  for (const node of allNodes([...graph.node, ...functions.flatMap((f) => f.node)])) {
    if (!domains.has(node.domain)) {
      throw unsupported(
        `Operator ${shown(node.opType)} of domain ${shown(node.domain)} is unknown: custom ops are not run`,
      );
    }
    const isSparse = node.attribute.some((a) => a.sparseTensor.length + a.sparseTensors.length > 0);
    if (isSparse || subgraphs(node).some(sparse)) throw unsupported("Sparse tensors are not read");
  }
  if (sparse(graph)) throw unsupported("Sparse initializers are not read");
}
