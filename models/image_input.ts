/** Images as rows that the plan of an encoder begins with: patches, and what is added to their projections. */
import { OatmillError } from "../errors.ts";
import { type Grid, resizeGrid } from "./bicubic.ts";
import type { Pixels } from "./classifier.ts";
import { CHANNELS, gridOf, type PatchSpec, patchWidth, prefixLength } from "./encoder_spec.ts";
import type { ModelSpec } from "./spec.ts";

/** Hidden state i is patch row i times the projection, plus added row i. Rows of CLS and its like have empty patches. */
export interface ImageRows {
  readonly rows: number;
  /** `[rows, 3 x size x size]` */
  readonly patches: Float32Array<ArrayBuffer>;
  /** `[rows, hidden]` */
  readonly added: Float32Array<ArrayBuffer>;
}

/** What {@linkcode ImageInput} needs of a model. */
export const IMAGE_VECTORS = [
  "classToken",
  "distillationToken",
  "registers",
  "positions",
  "patch.bias",
] as const;
export type ImageVectors = Readonly<Partial<Record<typeof IMAGE_VECTORS[number], Float32Array>>>;

export class ImageInput {
  readonly #patches: PatchSpec;
  readonly #width: number;
  readonly #vectors: ImageVectors;
  /** Added rows of the last size. */
  #last: { readonly grid: Grid; readonly added: Float32Array<ArrayBuffer> } | null = null;

  /** @param vectors as `encoderWeights()` names and shapes them */
  constructor({ encoder, hiddenSize }: ModelSpec, vectors: ImageVectors) {
    if (!encoder?.patches) throw new RangeError("The model reads no images");
    this.#patches = encoder.patches;
    this.#width = hiddenSize;
    this.#vectors = vectors;
  }

  /** @throws {OatmillError} invalid_request: the image is smaller than a patch, or its data has another size than it says */
  rowsOf(pixels: Pixels): ImageRows {
    const { size } = this.#patches, grid = gridOf(this.#patches, pixels);
    if (!(grid.rows > 0 && grid.columns > 0)) {
      throw new OatmillError(
        "invalid_request",
        `The image has ${pixels.width} x ${pixels.height} pixels, the model reads patches of ${size} x ${size}`,
      );
    }
    const values = CHANNELS * pixels.width * pixels.height;
    if (pixels.data.length !== values) {
      throw new OatmillError(
        "invalid_request",
        `The image has ${pixels.data.length} values, must have ${values}`,
      );
    }
    const rows = prefixLength(this.#patches) + grid.rows * grid.columns;
    return { rows, patches: this.#patchRows(pixels, grid, rows), added: this.#addedRows(grid, rows) };
  }

  #patchRows({ data, width, height }: Pixels, grid: Grid, rows: number): Float32Array<ArrayBuffer> {
    const { size } = this.#patches, all = patchWidth(this.#patches);
    const out = new Float32Array(rows * all);
    let at = prefixLength(this.#patches) * all;
    for (let row = 0; row < grid.rows; row++) {
      for (let column = 0; column < grid.columns; column++) {
        for (let channel = 0; channel < CHANNELS; channel++) {
          for (let y = 0; y < size; y++, at += size) {
            const from = (channel * height + row * size + y) * width + column * size;
            out.set(data.subarray(from, from + size), at);
          }
        }
      }
    }
    return out;
  }

  #addedRows(grid: Grid, rows: number): Float32Array<ArrayBuffer> {
    const last = this.#last;
    if (last && last.grid.rows === grid.rows && last.grid.columns === grid.columns) return last.added.slice();
    const { distillation, registers } = this.#patches, width = this.#width;
    const positions = this.#vector("positions"), ahead = distillation ? 2 : 1;
    const added = new Float32Array(rows * width);
    added.set(this.#vector("classToken"));
    if (distillation) added.set(this.#vector("distillationToken"), width);
    for (let i = 0; i < ahead * width; i++) added[i] += positions[i];
    if (registers > 0) added.set(this.#vector("registers"), ahead * width);
    const first = prefixLength(this.#patches) * width, bias = this.#vectors["patch.bias"];
    added.set(this.#gridPositions(positions.subarray(ahead * width), grid), first);
    if (bias) { for (let i = first; i < added.length; i++) added[i] += bias[(i - first) % width]; }
    this.#last = { grid, added };
    return added.slice();
  }

  #gridPositions(positions: Float32Array, to: Grid): Float32Array {
    const from = gridOf(this.#patches, this.#patches);
    if (from.rows === to.rows && from.columns === to.columns) return positions;
    return resizeGrid(positions, { from, to, antialias: this.#patches.antialias });
  }

  #vector(name: typeof IMAGE_VECTORS[number]): Float32Array {
    const vector = this.#vectors[name];
    if (!vector) throw new RangeError(`The model has no "${name}"`);
    return vector;
  }
}
