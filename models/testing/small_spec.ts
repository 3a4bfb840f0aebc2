/** A decoder small enough for the plain forward, whose sizes no kernel is made for: tests change what they are about. */
import type { ModelSpec } from "../spec.ts";

export const SMALL_DECODER: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 60,
  hiddenSize: 40,
  blocks: 2,
  contextLength: 64,
  norm: { kind: "rmsnorm", eps: 1e-6 },
  attention: {
    heads: 6,
    kvHeads: 3,
    headDim: 8,
    causal: true,
    scale: 0.3,
    window: null,
    rope: { dims: 8, inverseFrequencies: [1, 0.3, 0.1, 0.03], attentionFactor: 1 },
  },
  mlp: { intermediateSize: 64, activation: "silu", gated: true },
  tiedEmbeddings: true,
  biases: ["q", "k", "v"],
  bosId: null,
  eosIds: [],
};
