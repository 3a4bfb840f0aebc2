/** An artifact's weights as dense float32 again: S + U V, with what scales its inputs taken into the columns. */
import { OatmillError } from "../errors.ts";
import type { Shape2 } from "../kernels/layout.ts";
import { unpack } from "../kernels/packers.ts";
import type { Linalg } from "../compress/linalg/runtime.ts";
import type { Checkpoint, SourceConfig, TokenizerFiles, Weight, WeightRole } from "../models/checkpoint.ts";
import type { Artifact } from "../models/formats/artifact.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { TensorReader } from "../models/formats/artifact_tensors.ts";
import { inputOf, type LinearName, linearShapes, type ModelSpec } from "../models/spec.ts";

type Floats = Float32Array<ArrayBuffer>;

/** One linear layer W = S + U V as it is stored; a dense layer is all S. */
export interface LayerParts {
  /** `[dOut, dIn]` */
  readonly sparse: Floats;
  readonly shape: Shape2;
  /** U `[dOut, rank]`, V `[rank, dIn]`; null: the layer has no low-rank part. */
  readonly lowRank: { readonly u: Floats; readonly v: Floats; readonly rank: number } | null;
}

/** Reads an artifact as a {@linkcode Checkpoint}; blocks that structured pruning made smaller get zeros. */
export class DenseWeights implements Checkpoint {
  /** Without sizes of single blocks. */
  readonly spec: ModelSpec;
  readonly path: string;
  readonly format = "safetensors";
  readonly tensorBytes: number;
  readonly tokenizerFiles: TokenizerFiles | null;
  readonly sourceConfig: SourceConfig | null;
  readonly #blockSizes: ModelSpec["blockSizes"];
  readonly #tensors: TensorReader;
  readonly #entries: ReadonlyMap<string, TensorEntry>;
  readonly #linalg: Linalg;

  constructor(
    { path, spec, header, tensors, tokenizerFiles }: Artifact,
    { reader, linalg, sourceConfig }: {
      readonly reader: TensorReader;
      readonly linalg: Linalg;
      readonly sourceConfig: SourceConfig | null;
    },
  ) {
    const { blockSizes, ...whole } = spec;
    this.spec = whole;
    this.#blockSizes = blockSizes;
    this.path = path;
    this.tensorBytes = header.bytes;
    this.tokenizerFiles = tokenizerFiles;
    this.sourceConfig = sourceConfig;
    this.#tensors = reader;
    this.#entries = new Map(tensors.map((entry) => [entry.name, entry]));
    this.#linalg = linalg;
  }

  has(role: WeightRole): boolean {
    return this.isLayer(role) || this.#entries.has(this.#stored(role));
  }

  /** Whether the role is a linear layer. */
  isLayer(role: string): boolean {
    return this.#entries.has(`${role}.s`) || this.#entries.has(`${role}.w`);
  }

  async read(role: WeightRole): Promise<Weight> {
    if (this.isLayer(role)) {
      const { sparse, shape, lowRank } = this.readParts(role);
      return { data: await this.#sum(sparse, shape, lowRank), shape };
    }
    const name = this.#stored(role), { entry, values } = this.#values(name);
    const layer = name.replace(/\.bias$/, ""),
      shape = this.isLayer(layer) ? this.#layerShape(layer) : undefined;
    if (layer === name || !shape) return { data: values, shape: entry.shape };
    const size = { rows: values.length, cols: 1 }, to = { rows: shape[0], cols: 1 };
    return { data: padded(values, size, to, { row: this.#places(layer).row }), shape: [shape[0]] };
  }

  /** What {@linkcode readParts} will have, without reading it. */
  layerSize(role: string): { readonly shape: Shape2; readonly rank: number } {
    const shape = this.#layerShape(role);
    if (!shape) throw new RangeError(`${role} is no linear layer`);
    return { shape, rank: this.#entries.get(`${role}.v`)?.shape[0] ?? 0 };
  }

  /** The parts of a linear layer, their columns scaled as its input is. */
  readParts(role: string): LayerParts {
    const main = this.#values(this.#entries.has(`${role}.s`) ? `${role}.s` : `${role}.w`);
    const stored = main.entry.shape as unknown as Shape2, shape = this.#layerShape(role) ?? stored;
    const scale = this.#scale(role), [rows, cols] = stored, { row, column } = this.#places(role);
    const scaled = (values: Floats) => {
      if (scale) { for (let i = 0; i < values.length; i++) values[i] *= scale[i % cols]; }
      return values;
    };
    const sparse = padded(scaled(main.values), { rows, cols }, { rows: shape[0], cols: shape[1] }, {
      row,
      column,
    });
    if (!this.#entries.has(`${role}.u`)) return { sparse, shape, lowRank: null };
    const { values: u } = this.#values(`${role}.u`), { entry, values: v } = this.#values(`${role}.v`);
    const rank = entry.shape[0];
    return {
      sparse,
      shape,
      lowRank: {
        u: padded(u, { rows, cols: rank }, { rows: shape[0], cols: rank }, { row }),
        v: padded(scaled(v), { rows: rank, cols }, { rows: rank, cols: shape[1] }, { column }),
        rank,
      },
    };
  }

  close(): void {}

  async #sum(sparse: Floats, [rows, cols]: Shape2, lowRank: LayerParts["lowRank"]): Promise<Floats> {
    if (!lowRank) return sparse;
    const { u, v, rank } = lowRank;
    const { data } = await this.#linalg.multiply({ rows, cols: rank, data: u }, {
      rows: rank,
      cols,
      data: v,
    });
    for (let i = 0; i < data.length; i++) data[i] += sparse[i];
    return data;
  }

  #stored(role: WeightRole): string {
    return role === "head" && this.spec.tiedEmbeddings ? "embedding" : role;
  }

  /** Of the unpruned model; undefined for what is no linear layer of a block. */
  #layerShape(role: string): Shape2 | undefined {
    return linearShapes(this.spec)[role.replace(/^block\.\d+\./, "")];
  }

  /** Query heads left in a group stay in front of it, whole groups and FFN channels in front of all. */
  #places(role: string): { readonly row?: PlaceOf; readonly column?: PlaceOf } {
    const [, block, name] = /^block\.(\d+)\.(\w+)$/.exec(role) ?? [];
    const own = this.#blockSizes?.[Number(block)], { heads, kvHeads, headDim } = this.spec.attention;
    if (!own || (name !== "q" && name !== "o")) return {};
    const left = own.heads / own.kvHeads * headDim, group = heads / kvHeads * headDim;
    const place: PlaceOf = (index) => Math.floor(index / left) * group + index % left;
    return name === "q" ? { row: place } : { column: place };
  }

  #scale(role: string): Floats | null {
    const [, block, name = ""] = /^(block\.\d+)\.(.+)$/.exec(role) ?? [];
    const scale = `${block}.${inputOf(name as LinearName)}.scale`;
    return this.#entries.has(scale) ? this.#values(scale).values : null;
  }

  /** A tensor's values, row-major. */
  #values(name: string): { readonly entry: TensorEntry; readonly values: Floats } {
    const found = this.#tensors.read(name);
    if (!found) {
      throw new OatmillError("invalid_artifact", `Cannot read "${this.path}": tensor "${name}" is missing`);
    }
    const { entry, bytes } = found;
    const values = entry.format.kind === "vector"
      ? new Float32Array(bytes.slice().buffer)
      : new Float32Array(unpack(entry.format, bytes, [entry.shape[0], entry.shape[1]]));
    return { entry, values };
  }
}

/** Where a row or a column of a pruned layer goes. */
type PlaceOf = (index: number) => number;
const same: PlaceOf = (index) => index;

interface Size {
  readonly rows: number;
  readonly cols: number;
}

/** values in a larger matrix, zeros elsewhere. */
function padded(
  values: Floats,
  { rows, cols }: Size,
  to: Size,
  { row = same, column = same }: { readonly row?: PlaceOf; readonly column?: PlaceOf },
): Floats {
  if (to.rows === rows && to.cols === cols) return values;
  const out = new Float32Array(to.rows * to.cols);
  for (let i = 0, at = 0; i < rows; i++) {
    const start = row(i) * to.cols;
    for (let j = 0; j < cols; j++, at++) out[start + column(j)] = values[at];
  }
  return out;
}
