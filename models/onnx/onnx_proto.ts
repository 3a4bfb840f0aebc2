/**
 * ONNX files as messages (onnx.proto of github.com/onnx/onnx, IR version 13): the parts that Oatmill reads or writes itself.
 * Nodes, attributes and types keep what is not named here; of models and graphs it is left out when they are written.
 *
 * Values of tensors stay bytes as they lie in the file: a packed repeated field is one record on the wire, so fields of
 * numbers are declared as `bytes` and cost no memory of their own (tensor_values.ts reads them).
 */
import { create, createFileRegistry, fromBinary, fromJson, type Message, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

export interface OperatorSet {
  readonly domain: string;
  readonly version: bigint;
}
export interface KeyValue {
  readonly key: string;
  readonly value: string;
}
export interface TensorProto {
  readonly dims: readonly bigint[];
  /** TensorProto.DataType: tensor_values.ts. */
  readonly dataType: number;
  readonly floatData: readonly Uint8Array[];
  readonly int32Data: readonly Uint8Array[];
  readonly stringData: readonly Uint8Array[];
  readonly int64Data: readonly Uint8Array[];
  readonly name: string;
  readonly rawData: Uint8Array;
  readonly doubleData: readonly Uint8Array[];
  readonly uint64Data: readonly Uint8Array[];
  readonly externalData: readonly KeyValue[];
  /** 1: the values lie in another file. */
  readonly dataLocation: number;
}
export interface Dimension {
  readonly dim: { readonly case: "dimValue"; readonly value: bigint } | {
    readonly case: "dimParam";
    readonly value: string;
  } | { readonly case: undefined; readonly value?: undefined };
}
export interface TensorType {
  readonly elemType: number;
  /** Absent: not even the number of dimensions is known. */
  readonly shape?: { readonly dim: readonly Dimension[] };
}
export interface ValueInfo {
  readonly name: string;
  /** Absent, or without `tensorType`: unknown, or no tensor. */
  readonly type?: { readonly tensorType?: TensorType };
}
export interface AttributeProto {
  readonly name: string;
  readonly type: number;
  readonly f: number;
  readonly i: bigint;
  readonly t?: TensorProto;
  readonly g?: GraphProto;
  readonly floats: readonly number[];
  readonly ints: readonly bigint[];
  readonly tensors: readonly TensorProto[];
  readonly graphs: readonly GraphProto[];
  readonly sparseTensor: readonly Uint8Array[];
  readonly sparseTensors: readonly Uint8Array[];
}
export interface NodeProto {
  /** An empty name: not given. */
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly name: string;
  readonly opType: string;
  readonly attribute: readonly AttributeProto[];
  readonly domain: string;
}
export interface GraphProto {
  readonly node: readonly NodeProto[];
  readonly name: string;
  readonly initializer: readonly TensorProto[];
  readonly sparseInitializer: readonly Uint8Array[];
  readonly input: readonly ValueInfo[];
  readonly output: readonly ValueInfo[];
  readonly valueInfo: readonly ValueInfo[];
}
/** An operator that is defined by nodes in the file itself. */
export interface FunctionProto {
  readonly name: string;
  readonly node: readonly NodeProto[];
  readonly domain: string;
  /** Attributes with what they are where a node does not say it. */
  readonly attributeProto: readonly AttributeProto[];
}
export interface ModelProto {
  readonly irVersion: bigint;
  readonly opsetImport: readonly OperatorSet[];
  readonly graph?: GraphProto;
  readonly functions: readonly FunctionProto[];
}

interface Messages {
  ModelProto: ModelProto;
  GraphProto: GraphProto;
  NodeProto: NodeProto;
  FunctionProto: FunctionProto;
  AttributeProto: AttributeProto;
  TensorProto: TensorProto;
  ValueInfoProto: ValueInfo;
}

/** Fields by message: number, kind, and `[]` behind the kind of repeated ones; other names are messages. */
const FIELDS: Readonly<Record<string, Readonly<Record<string, readonly [number, string]>>>> = {
  ModelProto: {
    ir_version: [1, "int64"],
    graph: [7, "GraphProto"],
    opset_import: [8, "OperatorSetIdProto[]"],
    functions: [25, "FunctionProto[]"],
  },
  OperatorSetIdProto: { domain: [1, "string"], version: [2, "int64"] },
  FunctionProto: {
    name: [1, "string"],
    node: [7, "NodeProto[]"],
    domain: [10, "string"],
    attribute_proto: [11, "AttributeProto[]"],
  },
  GraphProto: {
    node: [1, "NodeProto[]"],
    name: [2, "string"],
    initializer: [5, "TensorProto[]"],
    input: [11, "ValueInfoProto[]"],
    output: [12, "ValueInfoProto[]"],
    value_info: [13, "ValueInfoProto[]"],
    sparse_initializer: [15, "bytes[]"],
  },
  NodeProto: {
    input: [1, "string[]"],
    output: [2, "string[]"],
    name: [3, "string"],
    op_type: [4, "string"],
    attribute: [5, "AttributeProto[]"],
    domain: [7, "string"],
  },
  AttributeProto: {
    name: [1, "string"],
    f: [2, "float"],
    i: [3, "int64"],
    t: [5, "TensorProto"],
    g: [6, "GraphProto"],
    floats: [7, "float[]"],
    ints: [8, "int64[]"],
    tensors: [10, "TensorProto[]"],
    graphs: [11, "GraphProto[]"],
    type: [20, "int32"],
    sparse_tensor: [22, "bytes[]"],
    sparse_tensors: [23, "bytes[]"],
  },
  TensorProto: {
    dims: [1, "int64[]"],
    data_type: [2, "int32"],
    float_data: [4, "bytes[]"],
    int32_data: [5, "bytes[]"],
    string_data: [6, "bytes[]"],
    int64_data: [7, "bytes[]"],
    name: [8, "string"],
    raw_data: [9, "bytes"],
    double_data: [10, "bytes[]"],
    uint64_data: [11, "bytes[]"],
    external_data: [13, "StringStringEntryProto[]"],
    data_location: [14, "int32"],
  },
  StringStringEntryProto: { key: [1, "string"], value: [2, "string"] },
  ValueInfoProto: { name: [1, "string"], type: [2, "TypeProto"] },
  TypeProto: { tensor_type: [1, "TensorTypeProto"] },
  TensorTypeProto: { elem_type: [1, "int32"], shape: [2, "TensorShapeProto"] },
  TensorShapeProto: { dim: [1, "DimensionProto[]"] },
  DimensionProto: { dim_value: [1, "int64"], dim_param: [2, "string"] },
};

function fieldJson(message: string, name: string, [number, kind]: readonly [number, string]) {
  const repeated = kind.endsWith("[]"), type = repeated ? kind.slice(0, -2) : kind;
  return {
    name,
    number,
    label: repeated ? "LABEL_REPEATED" : "LABEL_OPTIONAL",
    ...type in FIELDS
      ? { type: "TYPE_MESSAGE", typeName: `.onnx.${type}` }
      : { type: `TYPE_${type.toUpperCase()}` },
    ...message === "DimensionProto" ? { oneofIndex: 0 } : {}, // a number or the name of a free one
  };
}

const registry = createFileRegistry(
  fromJson(FileDescriptorProtoSchema, {
    name: "onnx.proto",
    package: "onnx",
    syntax: "proto2",
    messageType: Object.entries(FIELDS).map(([name, fields]) => ({
      name,
      field: Object.entries(fields).map(([field, kind]) => fieldJson(name, field, kind)),
      ...name === "DimensionProto" ? { oneofDecl: [{ name: "dim" }] } : {},
    })),
  }),
  () => undefined,
);

const schemaOf = (name: keyof Messages) => registry.getMessage(`onnx.${name}`)!;

/** @throws {Error} the library's, for what is no such message */
export const decodeModel = (bytes: Uint8Array): ModelProto =>
  // Cast: FIELDS and the interfaces say the same.
  fromBinary(schemaOf("ModelProto"), bytes) as Message & ModelProto;

/** A message of the given fields; the others are empty. */
export const newMessage = <K extends keyof Messages>(kind: K, fields: Partial<Messages[K]>): Messages[K] =>
  create(schemaOf(kind), fields as never) as Message & Messages[K];

/** Only what {@linkcode ModelProto} names. */
export const encodeModel = (
  { irVersion, opsetImport, graph, functions }: ModelProto,
): Uint8Array<ArrayBuffer> => {
  const model = newMessage("ModelProto", { irVersion, opsetImport, graph, functions });
  return toBinary(schemaOf("ModelProto"), model as unknown as Message) as Uint8Array<ArrayBuffer>;
};
