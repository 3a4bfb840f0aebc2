/** Values of ONNX tensors: how many bytes they must have, and floats of them. Little-endian, as ONNX has them. */
import { OatmillError } from "../../errors.ts";
import { widenBfloat16, widenFloat16, widenFloat64 } from "../formats/widen.ts";
import { newMessage, type TensorProto } from "./onnx_proto.ts";

/** TensorProto.DataType of what graphs exchange and layers are made of. */
export const ELEMENT = { float: 1, int64: 7, float16: 10, double: 11, bfloat16: 16 } as const;
const STRING = 8;

/** Where a type's values stand when they are not raw: 4 or 8 bytes each, or varints. */
type Field = "floatData" | "doubleData" | "int32Data" | "int64Data" | "uint64Data";

interface ElementType {
  readonly bits: number;
  readonly field: Field;
}
const float = (bits: number): ElementType => ({ bits, field: "floatData" });
const small = (bits: number): ElementType => ({ bits, field: "int32Data" });

/** By TensorProto.DataType; string (8) has no bytes of its own. */
const ELEMENT_TYPES: Readonly<Record<number, ElementType>> = {
  1: float(32),
  2: small(8),
  3: small(8),
  4: small(16),
  5: small(16),
  6: small(32),
  7: { bits: 64, field: "int64Data" },
  9: small(8),
  10: small(16),
  11: { bits: 64, field: "doubleData" },
  12: { bits: 32, field: "uint64Data" },
  13: { bits: 64, field: "uint64Data" },
  14: float(64),
  15: { bits: 128, field: "doubleData" },
  16: small(16),
  17: small(8),
  18: small(8),
  19: small(8),
  20: small(8),
  21: small(4),
  22: small(4),
  23: small(4),
  24: small(8),
  25: small(2),
  26: small(2),
};

const bad = ({ name }: TensorProto, why: string) =>
  new OatmillError(
    "invalid_checkpoint",
    `Cannot read initializer ${JSON.stringify(name.slice(0, 200))}: ${why}`,
  );

/** Dimensions as numbers. @throws {OatmillError} invalid_checkpoint */
export function shapeOf(tensor: TensorProto): number[] {
  const shape = tensor.dims.map(Number);
  const negative = shape.find((n) => n < 0);
  if (negative !== undefined) {
    throw bad(tensor, `its dims [${shape}] hold the negative ${negative}, an invalid shape`);
  }
  if (!Number.isSafeInteger(shape.reduce((a, b) => a * b, 1))) {
    throw bad(tensor, `its dims [${shape}] are too large`);
  }
  return shape;
}

/** Bytes of the values as raw data. @throws {OatmillError} invalid_checkpoint, unsupported_format */
export function byteSize(tensor: TensorProto): number {
  const type = ELEMENT_TYPES[tensor.dataType];
  if (!type) {
    const why = `element type ${tensor.dataType} is unknown`;
    throw new OatmillError("unsupported_format", bad(tensor, why).message);
  }
  return Math.ceil(shapeOf(tensor).reduce((a, b) => a * b, 1) * type.bits / 8);
}

const lengthOf = (pieces: readonly Uint8Array[]): number => pieces.reduce((n, { length }) => n + length, 0);

/** Every varint ends with the one byte that has no upper bit. */
const varints = (pieces: readonly Uint8Array[]): number =>
  pieces.reduce((n, piece) => piece.reduce((m, byte) => m + +(byte < 128), n), 0);

/**
 * That dims, type and values agree, and that no float is NaN (infinity is what masks add).
 * @throws {OatmillError} invalid_checkpoint, unsupported_format, non_finite_weights
 */
export function checkTensor(tensor: TensorProto): void {
  const count = shapeOf(tensor).reduce((a, b) => a * b, 1);
  if (tensor.dataType === STRING) {
    if (tensor.stringData.length === count) return;
    throw bad(tensor, `its dims ask for ${count} strings, there are ${tensor.stringData.length}`);
  }
  const bytes = byteSize(tensor), { field, bits } = ELEMENT_TYPES[tensor.dataType];
  const stored = tensor[field];
  const [found, wanted] = tensor.rawData.length > 0 || stored.length === 0
    ? [tensor.rawData.length, bytes]
    : field === "floatData" || field === "doubleData"
    ? [lengthOf(stored), bytes]
    // Two or four values of fewer than 8 bits share a number.
    : [varints(stored), bits < 8 ? bytes : count];
  if (found !== wanted) {
    throw bad(tensor, `its dims [${tensor.dims}] ask for a size of ${wanted}, there are ${found}`);
  }
  if (floats(tensor)?.some(Number.isNaN)) {
    throw new OatmillError("non_finite_weights", bad(tensor, "it holds NaN, which is not finite").message);
  }
}

/** The values' bytes in an array of their own, aligned for any type. */
function alignedBytes(tensor: TensorProto): Uint8Array<ArrayBuffer> {
  const { field } = ELEMENT_TYPES[tensor.dataType];
  if (tensor.rawData.length > 0 || tensor[field].length === 0) return new Uint8Array(tensor.rawData);
  const out = new Uint8Array(lengthOf(tensor[field]));
  let at = 0;
  for (const piece of tensor[field]) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}

const WIDEN: Readonly<Record<number, (source: Uint8Array<ArrayBuffer>, out: Float32Array) => void>> = {
  [ELEMENT.float16]: widenFloat16,
  [ELEMENT.bfloat16]: widenBfloat16,
  [ELEMENT.double]: widenFloat64,
};

/** Whether {@linkcode floats} reads it: floats, but no 16-bit ones written as varints (which nobody does). */
export const isFloats = ({ dataType, int32Data }: TensorProto): boolean =>
  dataType === ELEMENT.float || (dataType in WIDEN && int32Data.length === 0);

/** The values as float32; null where they are no floats. */
export function floats(tensor: TensorProto): Float32Array<ArrayBuffer> | null {
  if (!isFloats(tensor)) return null;
  const bytes = alignedBytes(tensor);
  if (tensor.dataType === ELEMENT.float) return new Float32Array(bytes.buffer);
  const out = new Float32Array(bytes.length / (ELEMENT_TYPES[tensor.dataType].bits / 8));
  WIDEN[tensor.dataType](bytes, out);
  return out;
}

/** The same tensor with its values as raw data. */
export const withRawData = ({ name, dims, dataType }: TensorProto, rawData: Uint8Array): TensorProto =>
  newMessage("TensorProto", { name, dims, dataType, rawData });
