/** The shapes of real models as specs: what a benchmark needs to know of them, without a file. */
import { ropeSpec } from "./families/rope.ts";
import type { ModelSpec } from "./spec.ts";
import type { SyntheticShape } from "./synthetic_shapes.ts";

/** What every shape has to say. */
interface Sizes {
  readonly hiddenSize: number;
  readonly blocks: number;
  readonly heads: number;
  readonly intermediateSize: number;
  readonly vocabSize: number;
  readonly contextLength: number;
}

interface DecoderShape extends Sizes {
  readonly kvHeads: number;
  readonly theta: number;
  readonly tied: boolean;
}

/** What a shape of either kind says of its spec. */
const common = (name: string, { vocabSize, hiddenSize, blocks, contextLength }: Sizes) => ({
  family: "synthetic",
  architecture: name,
  vocabSize,
  hiddenSize,
  blocks,
  contextLength,
  bosId: null,
  eosIds: [],
});

function decoder(name: string, s: DecoderShape): ModelSpec {
  const headDim = s.hiddenSize / s.heads;
  return {
    ...common(name, s),
    norm: { kind: "rmsnorm", eps: 1e-5 },
    attention: {
      heads: s.heads,
      kvHeads: s.kvHeads,
      headDim,
      causal: true,
      scale: headDim ** -0.5,
      window: null,
      rope: ropeSpec({ dims: headDim, theta: s.theta, maxPositions: s.contextLength, scaling: null }),
    },
    mlp: { intermediateSize: s.intermediateSize, activation: "silu", gated: true },
    tiedEmbeddings: s.tied,
    biases: [],
  };
}

/**
 * Blocks as in ViT; BERT normalises behind its layers instead of before them, which is the same work. Positions and
 * patches are left out: a table of `vocabSize` rows gives the hidden states that the first block reads.
 */
function encoder(name: string, s: Sizes): ModelSpec {
  const headDim = s.hiddenSize / s.heads;
  return {
    ...common(name, s),
    norm: { kind: "layernorm", eps: 1e-6 },
    attention: {
      heads: s.heads,
      kvHeads: s.heads,
      headDim,
      causal: false,
      scale: headDim ** -0.5,
      window: null,
      rope: null,
    },
    mlp: { intermediateSize: s.intermediateSize, activation: "gelu", gated: false },
    tiedEmbeddings: true,
    biases: ["q", "k", "v", "o", "up", "down"],
  };
}

const BASE = { hiddenSize: 768, blocks: 12, heads: 12, intermediateSize: 3072 } as const;

/** The spec of each shape. */
export const SYNTHETIC_SPECS: Readonly<Record<SyntheticShape, ModelSpec>> = {
  "tiny": decoder("tiny", {
    hiddenSize: 128,
    blocks: 2,
    heads: 4,
    kvHeads: 2,
    intermediateSize: 320,
    vocabSize: 256,
    contextLength: 256,
    theta: 10_000,
    tied: true,
  }),
  "smollm2-135m": decoder("smollm2-135m", {
    hiddenSize: 576,
    blocks: 30,
    heads: 9,
    kvHeads: 3,
    intermediateSize: 1536,
    vocabSize: 49_152,
    contextLength: 8192,
    theta: 100_000,
    tied: true,
  }),
  "llama-3.2-1b": decoder("llama-3.2-1b", {
    hiddenSize: 2048,
    blocks: 16,
    heads: 32,
    kvHeads: 8,
    intermediateSize: 8192,
    vocabSize: 128_256,
    contextLength: 131_072,
    theta: 500_000,
    tied: true,
  }),
  "phi-3-mini": decoder("phi-3-mini", {
    hiddenSize: 3072,
    blocks: 32,
    heads: 32,
    kvHeads: 32,
    intermediateSize: 8192,
    vocabSize: 32_064,
    contextLength: 4096,
    theta: 10_000,
    tied: false,
  }),
  "llama-2-7b": decoder("llama-2-7b", {
    hiddenSize: 4096,
    blocks: 32,
    heads: 32,
    kvHeads: 32,
    intermediateSize: 11_008,
    vocabSize: 32_000,
    contextLength: 4096,
    theta: 10_000,
    tied: false,
  }),
  "tiny-encoder": encoder("tiny-encoder", {
    hiddenSize: 128,
    blocks: 2,
    heads: 4,
    intermediateSize: 320,
    vocabSize: 256,
    contextLength: 64,
  }),
  /** 196 patches of 224 x 224 pixels and the class token. */
  "vit-b": encoder("vit-b", { ...BASE, vocabSize: 1000, contextLength: 197 }),
  "bert-base": encoder("bert-base", { ...BASE, vocabSize: 30_522, contextLength: 512 }),
};
