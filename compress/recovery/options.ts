/** What can be said about a recovery, and what holds when it is not. */

export const RECOVER_KINDS = ["distill", "blockwise"] as const;
export type RecoverKind = typeof RECOVER_KINDS[number];
export const TRAINED_PARTS = ["lowrank", "lowrank+sparse"] as const;
export type TrainedPart = typeof TRAINED_PARTS[number];

export interface RecoverOptions {
  /** distill: KL to the dense model's next tokens. blockwise: one block after the other, to the dense block's output. */
  readonly kind: RecoverKind;
  readonly train: TrainedPart;
  /** Of training (of each block, with blockwise); texts are repeated when they have fewer. */
  readonly tokens: number;
  readonly learningRate: number;
  /** What it is multiplied by for U and V, and for S; norms have it as it is. */
  readonly rates: { readonly lowRank: number; readonly sparse: number };
  /** Sequences of one step. */
  readonly batch: number;
  /** Tokens of a sequence: what texts are cut to. */
  readonly length: number;
  /** Share of the steps in which the rate rises from 0. */
  readonly warmupShare: number;
  /** Share of the rate that is left in the end, by a half cosine. */
  readonly finalShare: number;
  readonly betas: readonly [number, number];
  readonly epsilon: number;
  /** Decoupled: of the weights, times the rate, at each step. */
  readonly weightDecay: number;
  /** Longest gradient over all parameters; a longer one is shortened to it. */
  readonly clipNorm: number;
  /** Parts that a run is divided into by evaluations on held-out sequences. */
  readonly evaluations: number;
  /** Evaluations without a gain after which it ends. */
  readonly patience: number;
  /** Of the order of the sequences. */
  readonly seed: number;
}

/** By kind. Loshchilov & Hutter (arXiv 1711.05101) for AdamW; the rest as it was found on SmolLM2-135M at rate 0.5. */
export const RECOVER_DEFAULTS: Readonly<Record<RecoverKind, RecoverOptions>> = {
  distill: {
    kind: "distill",
    train: "lowrank+sparse",
    tokens: 100_000,
    learningRate: 1e-4,
    rates: { lowRank: 0.5, sparse: 2 },
    batch: 2,
    length: 256,
    warmupShare: 0.05,
    finalShare: 0,
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weightDecay: 0,
    clipNorm: 1,
    evaluations: 10,
    patience: 3,
    seed: 0,
  },
  blockwise: {
    kind: "blockwise",
    train: "lowrank+sparse",
    tokens: 100_000,
    learningRate: 2e-4,
    rates: { lowRank: 0.5, sparse: 1.5 },
    batch: 2,
    length: 256,
    warmupShare: 0.05,
    finalShare: 0,
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weightDecay: 0,
    clipNorm: 1,
    evaluations: 5,
    patience: 2,
    seed: 0,
  },
};
