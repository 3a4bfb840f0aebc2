/**
 * Attention rollout of a model of images (Abnar and Zuidema, arXiv 2005.00928): how much of each patch reaches CLS through
 * all blocks. Of a compressed model it is computed with S + L, with S alone and with L alone as the blocks' weights, as
 * OATS (arXiv 2409.13652) shows that both parts look at different things.
 */
import { OatmillError } from "../../errors.ts";
import type { EncoderModel, Pixels } from "../../models/classifier.ts";
import type { Weight, WeightRole } from "../../models/checkpoint.ts";
import { EncoderEnds } from "../../models/encoder_ends.ts";
import {
  type EncoderSpec,
  encoderWeights,
  gridOf,
  type PatchSpec,
  prefixLength,
} from "../../models/encoder_spec.ts";
import { IMAGE_VECTORS, ImageInput } from "../../models/image_input.ts";
import { type Activation, hasFinalNorm, type LinearName, type ModelSpec } from "../../models/spec.ts";
import { type Matrix, matrix } from "../linalg/matrix.ts";
import type { Linalg } from "../linalg/runtime.ts";

/** Which part of W = S + L a picture is of. */
export const ROLLOUT_PARTS = ["whole", "sparse", "low_rank"] as const;
export type RolloutPart = typeof ROLLOUT_PARTS[number];

type Floats = Float32Array<ArrayBuffer>;

/** An artifact's weights; `export/dense_weights.ts` reads them. */
export interface PartedWeights {
  readonly spec: ModelSpec;
  has(role: WeightRole): boolean;
  read(role: WeightRole): Promise<Weight>;
  /** Of a linear layer; one that stayed dense has no low-rank part. */
  readParts(role: string): {
    readonly sparse: Floats;
    readonly shape: readonly [number, number];
    readonly lowRank: { readonly u: Floats; readonly v: Floats; readonly rank: number } | null;
  };
}

export interface Rollout {
  readonly rows: number;
  readonly columns: number;
  readonly parts: readonly {
    readonly part: RolloutPart;
    /** What CLS has of each patch, `[rows, columns]`; all tokens together are 1. */
    readonly map: Floats;
    /** What a classifier says of the image with these weights. */
    readonly label: string | null;
    /** Pearson's, with the map of the whole. */
    readonly correlation: number;
  }[];
}

/** @throws {OatmillError} invalid_request: the model reads no images */
export async function attentionRollout(
  pixels: Pixels,
  weights: PartedWeights,
  linalg: Linalg,
): Promise<Rollout> {
  const { spec } = weights, patches = spec.encoder?.patches;
  if (!patches) {
    throw new OatmillError("invalid_request", "Attention rollout is of models that read images", "rollout");
  }
  const grid = gridOf(patches, pixels);
  const maps: { readonly map: Floats; readonly label: string | null }[] = [];
  for (const part of ROLLOUT_PARTS) {
    maps.push(await new Forward(weights, linalg, part).rollout(pixels, patches));
  }
  const parts = maps.map(({ map, label }, i) => ({
    part: ROLLOUT_PARTS[i],
    map,
    label,
    correlation: correlation(map, maps[0].map),
  }));
  return { ...grid, parts };
}

/** The blocks with one part of their weights; the embedding, norms, biases and what comes behind stay the model's. */
class Forward {
  readonly #spec: ModelSpec;

  constructor(readonly weights: PartedWeights, readonly linalg: Linalg, readonly part: RolloutPart) {
    this.#spec = weights.spec;
  }

  async rollout(pixels: Pixels, patches: PatchSpec): Promise<{ map: Floats; label: string | null }> {
    let x = await this.#embed(pixels);
    const looks: Matrix[] = [];
    for (let block = 0; block < this.#spec.blocks; block++) {
      const { y, look } = await this.#attention(block, await this.#norm(x, `block.${block}.attnNorm`));
      looks.push(look);
      x = sum(x, y);
      x = sum(x, await this.#mlp(block, await this.#norm(x, `block.${block}.mlpNorm`)));
    }
    const states = hasFinalNorm(this.#spec) ? await this.#norm(x, "finalNorm") : x;
    return { map: fromClass(looks).slice(prefixLength(patches)), label: await this.#label(states) };
  }

  async #embed(pixels: Pixels): Promise<Matrix> {
    const vectors = await this.#vectors(IMAGE_VECTORS);
    const { rows, patches, added } = new ImageInput(this.#spec, Object.fromEntries(vectors)).rowsOf(pixels);
    const { data, shape: [width, values] } = await this.weights.read("patch");
    const projected = await this.linalg.multiply(
      { rows, cols: values, data: patches },
      { rows: width, cols: values, data: asFloats(data) },
      { transB: true },
    );
    const x = sum(projected, { ...projected, data: added });
    return this.#spec.encoder!.embeddingNorm ? await this.#norm(x, "embeddingNorm") : x;
  }

  /** @returns what is added to x, and the heads' mean attention, half of it to itself: the residual stream */
  async #attention(block: number, x: Matrix): Promise<{ y: Matrix; look: Matrix }> {
    const [q, k, v] = await Promise.all(
      (["q", "k", "v"] as const).map((name) => this.#linear(block, name, x)),
    );
    const { heads, kvHeads, headDim, scale } = this.#spec.attention, n = x.rows;
    const mixed = matrix(n, q.cols), look = matrix(n, n);
    for (let head = 0; head < heads; head++) {
      const own = head * headDim, shared = Math.floor(head * kvHeads / heads) * headDim;
      for (let i = 0; i < n; i++) {
        const shares = softmax(Float64Array.from(
          { length: n },
          (_, j) => scale * dot(q, i * q.cols + own, k, j * k.cols + shared, headDim),
        ));
        for (let j = 0; j < n; j++) {
          look.data[i * n + j] += shares[j] / (2 * heads);
          for (let c = 0; c < headDim; c++) {
            mixed.data[i * q.cols + own + c] += shares[j] * v.data[j * v.cols + shared + c];
          }
        }
      }
    }
    for (let i = 0; i < n; i++) look.data[i * n + i] += 0.5;
    return { y: await this.#linear(block, "o", mixed), look };
  }

  async #mlp(block: number, x: Matrix): Promise<Matrix> {
    const { gated, activation } = this.#spec.mlp, act = ACTIVATE[activation];
    const up = await this.#linear(block, "up", x);
    const gate = gated ? await this.#linear(block, "gate", x) : null;
    const inner = gate ? up.data.map((u, i) => act(gate.data[i]) * u) : up.data.map(act);
    return await this.#linear(block, "down", { ...up, data: inner });
  }

  /** X W' + bias with this part of W. */
  async #linear(block: number, name: LinearName, x: Matrix): Promise<Matrix> {
    const role = `block.${block}.${name}` as const;
    const y = await this.#product(role, x);
    if (!this.weights.has(`${role}.bias`)) return y;
    const { data: bias } = await this.weights.read(`${role}.bias`);
    return { ...y, data: y.data.map((v, i) => v + bias[i % y.cols]) };
  }
  async #product(role: `block.${number}.${LinearName}`, x: Matrix): Promise<Matrix> {
    const times = (rows: number, cols: number, data: Floats, by: Matrix) =>
      this.linalg.multiply(by, { rows, cols, data }, { transB: true });
    const { sparse, shape: [dOut, dIn], lowRank } = this.weights.readParts(role);
    if (!lowRank || this.part === "sparse") return await times(dOut, dIn, sparse, x);
    const { u, v, rank } = lowRank;
    const low = await times(dOut, rank, u, await times(rank, dIn, v, x));
    return this.part === "low_rank" ? low : sum(low, await times(dOut, dIn, sparse, x));
  }

  async #norm(x: Matrix, role: WeightRole): Promise<Matrix> {
    const { kind, eps } = this.#spec.norm, { data: weight } = await this.weights.read(role);
    const bias = this.weights.has(`${role}.bias`) ? (await this.weights.read(`${role}.bias`)).data : null;
    const out = matrix(x.rows, x.cols);
    for (let i = 0; i < x.rows; i++) {
      const row = x.data.subarray(i * x.cols, (i + 1) * x.cols);
      const mean = kind === "layernorm" ? row.reduce((a, b) => a + b, 0) / x.cols : 0;
      const square = row.reduce((all, v) => all + (v - mean) ** 2, 0) / x.cols;
      const unit = 1 / Math.sqrt(square + eps);
      for (let j = 0; j < x.cols; j++) {
        out.data[i * x.cols + j] = (row[j] - mean) * unit * weight[j] + (bias?.[j] ?? 0);
      }
    }
    return out;
  }

  async #label(states: Matrix): Promise<EncoderLabel> {
    const encoder = this.#spec.encoder!;
    if (!encoder.classifier) return null;
    const roles = encoderWeights(this.#spec).map(({ role }) => role).filter((role) => role !== "patch");
    const vectors = new Map<WeightRole, Float32Array>(
      await this.#vectors([...roles, ...roles.map((role) => `${role}.bias` as const)]),
    );
    const spec: ModelSpec & { readonly encoder: EncoderSpec } = { ...this.#spec, encoder };
    const { logits } = new EncoderEnds(spec, (name) => vectors.get(name as WeightRole) ?? null).read(
      states.data,
    );
    return encoder.labels[logits!.indexOf(Math.max(...logits!))];
  }

  async #vectors<R extends WeightRole>(roles: readonly R[]): Promise<[R, Float32Array][]> {
    const known = roles.filter((role) => this.weights.has(role));
    return await Promise.all(
      known.map(async (role) => [role, (await this.weights.read(role)).data] as [R, Floats]),
    );
  }
}

type EncoderLabel = NonNullable<EncoderModel["labels"]>[number] | null;

/** The first row of A_last ... A_first: what CLS has of every token. */
function fromClass(looks: readonly Matrix[]): Floats {
  let row = new Float32Array(looks[0].rows);
  row[0] = 1;
  for (const { rows: n, data } of looks.toReversed()) {
    const next = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) next[j] += row[i] * data[i * n + j];
    }
    row = next;
  }
  return row;
}

const sum = (a: Matrix, b: Matrix): Matrix => ({ ...a, data: a.data.map((v, i) => v + b.data[i]) });
const asFloats = (data: Float32Array): Floats => data as Floats;

function dot(a: Matrix, from: number, b: Matrix, at: number, count: number): number {
  let total = 0;
  for (let c = 0; c < count; c++) total += a.data[from + c] * b.data[at + c];
  return total;
}

function softmax(x: Float64Array): Float64Array {
  const most = x.reduce((a, b) => Math.max(a, b)), powers = x.map((v) => Math.exp(v - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / total);
}

/** Pearson's; 0 where one of them does not vary. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const mean = (x: ArrayLike<number>) => Array.from(x).reduce((all, v) => all + v, 0) / x.length;
  const meanA = mean(a), meanB = mean(b);
  let both = 0, squareA = 0, squareB = 0;
  for (let i = 0; i < a.length; i++) {
    both += (a[i] - meanA) * (b[i] - meanB);
    squareA += (a[i] - meanA) ** 2;
    squareB += (b[i] - meanB) ** 2;
  }
  return squareA * squareB > 0 ? both / Math.sqrt(squareA * squareB) : 0;
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const ACTIVATE: Readonly<Record<Activation, (x: number) => number>> = {
  relu: (x) => Math.max(0, x),
  silu: (x) => x * sigmoid(x),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  gelu: (x) => x / 2 * (1 + erf(x * Math.SQRT1_2)),
  gelu_tanh: (x) => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)),
};

/** Within 1.5e-7: Abramowitz and Stegun, 7.1.26. */
function erf(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592]
    .reduce((sum, a) => sum * t + a, 0);
  return Math.sign(x) * (1 - series * t * Math.exp(-x * x));
}
