/**
 * A model of random weights, made of nothing but a spec: what a benchmark of a shape runs. How its layers are stored is
 * the caller's to say, so that it can be exactly what compression would store.
 *
 * Only a sample of each kind of matrix is random and packed; the rest repeats its groups of rows, so that gigabytes are
 * there in seconds. Speed does not depend on the values, as long as activations stay finite and no denormals appear.
 */
import { columnParts, groupBytes, groupCount, type Shape2, type WeightFormat } from "../kernels/layout.ts";
import { fromPanels } from "../kernels/panels.ts";
import { assignWindows, packWindows } from "../kernels/packers.ts";
import type { StoredPart, TensorEntry } from "./formats/artifact_header.ts";
import { alignUp, entryBytes, packDenseTensor, POSITIONS_FORMAT, ROUTER_FORMAT } from "./pack_dense.ts";
import type { PackedModel } from "./packed.ts";
import {
  blockNorms,
  hasFinalNorm,
  inputOf,
  linearKind,
  type LinearName,
  linearShapes,
  type ModelSpec,
  type NormShape,
  normShape,
  routerShape,
} from "./spec.ts";

export interface SyntheticLayout {
  readonly blockChunks: number;
  /** Tensors of the linear layer W `[dOut, dIn]` of a block. */
  readonly parts: (shape: Shape2, block: number) => readonly StoredPart[];
  /** Format of the embedding and the head. */
  readonly table: WeightFormat;
  /** Whether inputs are multiplied by a scale a column before they are quantised, as a compressed model's are. */
  readonly inputScales: boolean;
}

/** Rows that are random; the others repeat their panels of 8 in a random order. */
const SAMPLE_ROWS = 64;

type Described = Pick<TensorEntry, "name" | "format" | "shape">;

/** All tensors in the order of an artifact: embedding, blocks, final norm, head. */
function describe(spec: ModelSpec, layout: SyntheticLayout): Described[] {
  const list: Described[] = [];
  const vector = (name: string, n: number) => list.push({ name, format: { kind: "vector" }, shape: [n] });
  const norm = (name: string, { length, bias }: NormShape) => {
    vector(name, length);
    if (bias) vector(`${name}.bias`, length);
  };
  const table = (name: string) =>
    list.push({ name, format: layout.table, shape: [spec.vocabSize, spec.hiddenSize] });
  table("embedding");
  if (spec.learnedPositions) {
    list.push({ name: "positions", format: POSITIONS_FORMAT, shape: [spec.contextLength, spec.hiddenSize] });
  }
  const layers = Object.entries(linearShapes(spec)) as [LinearName, Shape2][], router = routerShape(spec);
  for (let i = 0; i < spec.blocks; i++) {
    const block = `block.${i}`;
    for (const [name, shape] of Object.entries(blockNorms(spec))) norm(`${block}.${name}`, shape);
    if (router) list.push({ name: `${block}.router`, format: ROUTER_FORMAT, shape: router });
    if (layout.inputScales) {
      const widths = new Map(layers.map(([name, [, dIn]]) => [inputOf(name), dIn]));
      for (const [input, dIn] of widths) vector(`${block}.${input}.scale`, dIn);
    }
    for (const [name, shape] of layers) {
      for (const { part, format, shape: size } of layout.parts(shape, i)) {
        list.push({ name: `${block}.${name}.${part}`, format, shape: size });
      }
      if (spec.biases.includes(linearKind(name))) vector(`${block}.${name}.bias`, shape[0]);
    }
  }
  if (hasFinalNorm(spec)) norm("finalNorm", normShape(spec));
  if (!spec.tiedEmbeddings) table("head");
  return list;
}

/** Seeded uniform numbers in [0, 1): mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The same random rows as whole panels, and group by group for an odd last one. */
interface Sample {
  readonly panels: Uint8Array;
  readonly groups: Uint8Array;
}

/** Fills tensors with random weights: the same ones every time. */
export class Filler {
  readonly #samples = new Map<string, Sample>();
  readonly #random = randomNumbers(1);

  fill({ name, format, shape }: TensorEntry, out: Uint8Array): void {
    if (format.kind === "vector") {
      const values = this.#vector(name, shape[0]);
      out.set(new Uint8Array(values.buffer));
      return;
    }
    const [dOut, dIn] = shape;
    let at = 0;
    for (const { cols } of columnParts(format, dIn)) {
      at += this.#fillPart(format, [dOut, cols], out.subarray(at));
    }
  }

  /** A layer whose rows are not cut. @returns its bytes */
  #fillPart(format: WeightFormat, [dOut, dIn]: Shape2, out: Uint8Array): number {
    const { panels, groups } = this.#sample(format, dIn), bytes = groupBytes(format, dIn);
    const copy = (from: Uint8Array, size: number, at: number) => {
      const start = Math.floor(this.#random() * from.length / size) * size;
      out.set(from.subarray(start, start + size), at);
    };
    const count = groupCount(dOut);
    for (let g = 0; g + 1 < count; g += 2) copy(panels, 2 * bytes, g * bytes);
    if (count % 2) copy(groups, bytes, (count - 1) * bytes);
    return count * bytes;
  }

  /** Norm weights and input scales near 1, biases near 0. */
  #vector(name: string, n: number): Float32Array<ArrayBuffer> {
    const mean = name.endsWith(".bias") ? 0 : 1;
    return Float32Array.from({ length: n }, () => mean + (this.#random() - 0.5) / 4);
  }

  /** Packed `[SAMPLE_ROWS, dIn]` whose products with inputs of size 1 have size 1. */
  #sample(format: WeightFormat, dIn: number): Sample {
    const key = JSON.stringify([format, dIn]);
    let sample = this.#samples.get(key);
    if (!sample) {
      const panels = this.#pack(format, dIn);
      sample = { panels, groups: fromPanels(format, [SAMPLE_ROWS, dIn], panels) };
      this.#samples.set(key, sample);
    }
    return sample;
  }

  #pack(format: WeightFormat, dIn: number): Uint8Array {
    const shape: Shape2 = [SAMPLE_ROWS, dIn];
    const kept = format.kind === "windows" ? Math.max(1, dIn * format.windows / 16) : dIn;
    const size = Math.sqrt(12 / kept); // uniform numbers of variance 1 / kept
    const W = Float32Array.from({ length: shape[0] * dIn }, () => (this.#random() - 0.5) * size);
    if (format.kind !== "windows") return packDenseTensor(W, shape, format);
    const mask = assignWindows(W.map(Math.abs), shape, format);
    return packWindows(W.map((w, i) => mask[i] ? w : 0), shape, format);
  }
}

/** A model of random weights: the same ones every time. */
export function syntheticModel(name: string, spec: ModelSpec, layout: SyntheticLayout): PackedModel {
  let offset = 0;
  const tensors = describe(spec, layout).map((t): TensorEntry => {
    const bytes = entryBytes(t.format, t.shape);
    const entry = { ...t, offset, bytes };
    offset = alignUp(offset + bytes);
    return entry;
  });
  return {
    name,
    spec,
    blockChunks: layout.blockChunks,
    tensors,
    load(destination) {
      const filler = new Filler();
      for (const entry of tensors) filler.fill(entry, destination(entry));
      return Promise.resolve();
    },
  };
}
