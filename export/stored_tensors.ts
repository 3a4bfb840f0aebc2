/** Weights by role put together as a family stores them: the way back of models/source_checkpoint.ts. */
import type { Weight, WeightRole } from "../models/checkpoint.ts";
import type { TensorNames } from "../models/families/mod.ts";
import { type WeightLocation, weightLocations } from "../models/families/mod.ts";
import type { LocationOptions } from "../models/families/weight_names.ts";
import type { ModelSpec } from "../models/spec.ts";

/** One tensor of a file, and the weights it is made of. */
export interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly parts: readonly { readonly role: WeightRole; readonly location: WeightLocation }[];
}

/** All tensors of a model, in the order of its blocks. */
export function storedTensors(
  spec: ModelSpec,
  names: TensorNames,
  options: LocationOptions = {},
): StoredTensor[] {
  const tensors = new Map<string, { name: string; shape: readonly number[]; parts: StoredTensor["parts"] }>();
  for (const [role, location] of weightLocations(spec, names, options)) {
    const { tensor: name, tensorShape: shape, rows } = location;
    const known = tensors.get(name) ?? { name, shape, parts: [] };
    // A tied head is the embedding, and blocks may have one norm under two names: each is written once.
    if (known.parts.some((part) => part.location.rows.first === rows.first)) continue;
    tensors.set(name, { ...known, parts: [...known.parts, { role, location }] });
  }
  return [...tensors.values()];
}

/** @returns the tensor's values, row-major */
export async function buildTensor(
  { shape, parts }: StoredTensor,
  read: (role: WeightRole) => Promise<Weight>,
): Promise<Float32Array<ArrayBuffer>> {
  const out = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (const { role, location } of parts) place(out, (await read(role)).data, location);
  return out;
}

function place(out: Float32Array, weight: Float32Array, location: WeightLocation): void {
  const { shape: [dOut, dIn = 1], tensorShape, rows, interleavedHeads, transposed, offset } = location;
  const data = interleavedHeads ? interleavedRows(weight, interleavedHeads, dIn) : weight;
  if (transposed) {
    const all = tensorShape[1];
    for (let row = 0; row < dOut; row++) {
      for (let i = 0; i < dIn; i++) out[i * all + rows.first + row] = data[row * dIn + i];
    }
    return;
  }
  const run = dOut / rows.count * dIn;
  for (let i = 0; i < rows.count; i++) {
    const from = data.subarray(i * run, (i + 1) * run), at = (rows.first + i * rows.apart) * dIn;
    if (offset === 0) out.set(from, at);
    else from.forEach((value, k) => out[at + k] = value - offset);
  }
}

/**
 * Rows of heads, pair i at i and i + headDim / 2, in llama.cpp's order: at 2i and 2i + 1.
 * @param data `[heads x headDim, width]`
 */
function interleavedRows(data: Float32Array, heads: number, width: number): Float32Array {
  const out = new Float32Array(data.length), headDim = data.length / width / heads;
  for (let row = 0; row < heads * headDim; row++) {
    const inHead = row % headDim, pair = inHead % (headDim / 2), half = inHead < headDim / 2 ? 0 : 1;
    const to = row - inHead + 2 * pair + half;
    out.set(data.subarray(row * width, (row + 1) * width), to * width);
  }
  return out;
}
