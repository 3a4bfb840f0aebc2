/** A checkpoint as compression stores it, but exactly: what it does to layers and inputs, without its loss. */
import { packF32 } from "../../kernels/packers.ts";
import type { LoraAdapter } from "../adapter.ts";
import type { Checkpoint, WeightRole } from "../checkpoint.ts";
import { alignUp, entryBytes, packDense } from "../pack_dense.ts";
import type { PackedModel } from "../packed.ts";
import { inputNames, inputOf, type LinearName, linearShapes } from "../spec.ts";

type Floats = Float32Array<ArrayBuffer>;

interface Made {
  readonly name: string;
  readonly format: { readonly kind: "f32" | "vector" };
  readonly shape: readonly number[];
  make(): Promise<Floats>;
}

/** Of a column's input. */
const scaleOf = (column: number): number => 0.5 + column % 4 / 2;
const unscaled = (W: Floats, dIn: number): Floats => W.map((w, i) => w / scaleOf(i % dIn));

/**
 * Inputs are scaled, and every second layer is S + U V in f32: W less these products, and they.
 * @param factors A is V, B is U
 */
export function splitModel(checkpoint: Checkpoint, factors: LoraAdapter): PackedModel {
  const dense = packDense(checkpoint, { values: "f32" }), { spec } = checkpoint;
  const read = async (role: string) => (await checkpoint.read(role as WeightRole)).data as Floats;
  let layers = 0;
  const made = dense.tensors.flatMap(({ name, format, shape }): Made[] => {
    const layer = name.replace(/\.w$/, ""), lora = factors.layers.get(layer), [dOut, dIn] = shape;
    const { kind } = format as Made["format"]; // a dense f32 model has no others
    const whole = { name, format: { kind }, shape, make: () => read(layer) };
    if (!lora) return [whole];
    if (layers++ % 2 === 1) return [{ ...whole, make: async () => unscaled(await read(layer), dIn) }];
    const { rank, A: V, B: U } = lora;
    const rest = async () => {
      const W = (await read(layer)).map((w, i) => {
        const row = Math.floor(i / dIn), column = i % dIn;
        for (let r = 0; r < rank; r++) w -= U[row * rank + r] * V[r * dIn + column];
        return w;
      });
      return unscaled(W, dIn);
    };
    return [
      { name: `${layer}.s`, format: { kind }, shape, make: rest },
      {
        name: `${layer}.v`,
        format: { kind },
        shape: [rank, dIn],
        make: () => Promise.resolve(unscaled(V, dIn)),
      },
      { name: `${layer}.u`, format: { kind }, shape: [dOut, rank], make: () => Promise.resolve(U) },
    ];
  });
  const shapes = Object.entries(linearShapes(spec));
  for (const input of inputNames(spec)) {
    const [, [, width]] = shapes.find(([name]) => inputOf(name as LinearName) === input)!;
    const make = () => Promise.resolve(Float32Array.from({ length: width }, (_, column) => scaleOf(column)));
    for (let block = 0; block < spec.blocks; block++) {
      made.push({ name: `block.${block}.${input}.scale`, format: { kind: "vector" }, shape: [width], make });
    }
  }
  let offset = 0;
  const tensors = made.map(({ name, format, shape }) => {
    const entry = { name, format, shape, offset, bytes: entryBytes(format, shape) };
    offset = alignUp(offset + entry.bytes);
    return entry;
  });
  return {
    ...dense,
    tensors,
    async load(destination) {
      for (const [i, { format, shape, make }] of made.entries()) {
        const data = await make();
        const bytes = format.kind === "f32"
          ? packF32(data, [shape[0], shape[1]])
          : new Uint8Array(data.buffer);
        destination(tensors[i]).set(bytes);
      }
    },
  };
}
