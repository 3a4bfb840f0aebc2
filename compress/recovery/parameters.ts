/**
 * What recovery trains: of every linear layer that is S + L the kept entries of S, and U and V of L; norms. All of a
 * block's trained values stand in one vector in shared memory, so that workers read and write them in place.
 */
import type { Shape2 } from "../../kernels/layout.ts";
import type { LinearName, ModelSpec } from "../../models/spec.ts";
import type { SharedTensor } from "../forward/block_job.ts";
import type { RecoverOptions, TrainedPart } from "./options.ts";
import type { RatePart } from "./trained_values.ts";

export type SharedFloats = Float32Array<SharedArrayBuffer>;

/** W = S + U V of one linear layer `[dOut, dIn]`; while it is trained (coordinates.ts) W = (S + U V) diag(columns). */
export interface LayerParameters {
  readonly name: LinearName;
  readonly shape: Shape2;
  /** S where it is not 0: `row x dIn + column` in ascending order, and the value there. */
  readonly kept: { readonly indices: Uint32Array<SharedArrayBuffer>; readonly values: SharedFloats };
  /** `[dOut, rank]` */
  readonly U: SharedFloats;
  /** `[rank, dIn]` */
  readonly V: SharedFloats;
  /** 0: no L. */
  readonly rank: number;
  /** `[dIn]`: the unit in which each column is trained; absent: 1. */
  readonly columns?: SharedFloats;
}

/** One transformer block. Its weights by the names of `blockWeights` (forward/block_graph.ts). */
export interface BlockParameters {
  readonly layers: readonly LayerParameters[];
  /** Weights and biases of norms, by name: `attnNorm`, `attnNorm.bias`, ... */
  readonly norms: Readonly<Record<string, SharedFloats>>;
  /** What is not trained: biases, the router, layers that stayed dense. */
  readonly fixed: Readonly<Record<string, SharedTensor>>;
  /**
   * All that can be trained, which the arrays above are parts of: U and V of every layer in order, norms, kept entries of
   * every layer. So what `lowrank` trains is its beginning.
   */
  readonly values: SharedFloats;
  /** Values before the first kept entry. */
  readonly lowRankLength: number;
}

export interface TrainableModel {
  readonly spec: ModelSpec;
  readonly blocks: readonly BlockParameters[];
  /** Trained too; null in models without one. */
  readonly finalNorm: { readonly weight: SharedFloats; readonly bias?: SharedFloats } | null;
  /** `[vocab, hidden]`, the embedding where they are tied; never trained. */
  readonly head: SharedTensor;
}

/** What a block's parameters are to be allocated for. */
export interface BlockShape {
  readonly layers: readonly {
    readonly name: LinearName;
    readonly shape: Shape2;
    readonly rank: number;
    /** Places of S, ascending. */
    readonly indices: Uint32Array<SharedArrayBuffer>;
    readonly columns?: SharedFloats;
  }[];
  /** Length of each. */
  readonly norms: Readonly<Record<string, number>>;
  readonly fixed: BlockParameters["fixed"];
}

/** A block's parameters, all 0, in one vector. */
export function allocateBlock({ layers, norms, fixed }: BlockShape): BlockParameters {
  const dense = layers.reduce((sum, { shape: [dOut, dIn], rank }) => sum + rank * (dOut + dIn), 0);
  const lowRankLength = Object.values(norms).reduce((a, b) => a + b, dense);
  const length = layers.reduce((sum, { indices }) => sum + indices.length, lowRankLength);
  const values = new Float32Array(new SharedArrayBuffer(4 * length));
  let at = 0;
  const take = (count: number): SharedFloats => values.subarray(at, at += count);
  const factors = layers.map(({ shape: [dOut, dIn], rank }) => ({
    U: take(dOut * rank),
    V: take(rank * dIn),
  }));
  const normValues = Object.fromEntries(Object.entries(norms).map(([name, size]) => [name, take(size)]));
  const withKept = layers.map(({ name, shape, rank, indices, columns }, i): LayerParameters => ({
    name,
    shape,
    rank,
    ...factors[i],
    kept: { indices, values: take(indices.length) },
    ...columns ? { columns } : {},
  }));
  return { layers: withKept, norms: normValues, fixed, values, lowRankLength };
}

/** What of a block is trained. */
export const trainedPart = ({ values, lowRankLength }: BlockParameters, train: TrainedPart): SharedFloats =>
  train === "lowrank" ? values.subarray(0, lowRankLength) : values;

/** How fast each part of {@linkcode trainedPart} learns: U and V, norms, kept entries. */
export function trainedRates(
  block: BlockParameters,
  options: Pick<RecoverOptions, "train" | "rates">,
): RatePart[] {
  const { norms, lowRankLength, values } = block, { lowRank, sparse } = options.rates;
  const normLength = Object.values(norms).reduce((sum, { length }) => sum + length, 0);
  const parts = [
    { length: lowRankLength - normLength, rate: lowRank },
    { length: normLength, rate: 1 },
    { length: values.length - lowRankLength, rate: sparse },
  ];
  return options.train === "lowrank" ? parts.slice(0, 2) : parts;
}
