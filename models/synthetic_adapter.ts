/** LoRA adapters of random weights, made of nothing but a spec: what benchmarks serve and tests merge. */
import type { LoraAdapter, LoraLayer } from "./adapter.ts";
import { blockSpec, type LinearKind, linearShapes, type ModelSpec } from "./spec.ts";

export interface SyntheticAdapterOptions {
  /** Layers that are adapted, in every block. */
  readonly kinds: readonly LinearKind[];
  readonly rank: number;
  readonly seed?: number;
  /** Of the products: 1 makes them about half as large as those of layers that keep their inputs' size. */
  readonly size?: number;
}

/** Uniform numbers in -size..size: the same ones for a seed. */
function randomOf(seed: number): (length: number, size: number) => Float32Array<ArrayBuffer> {
  let state = seed;
  return (length, size) =>
    Float32Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes, ranqd1
      return size * (state / 2 ** 31 - 1);
    });
}

export function syntheticAdapter(
  spec: ModelSpec,
  { kinds, rank, seed = 1, size = 1 }: SyntheticAdapterOptions,
): LoraAdapter {
  const values = randomOf(seed), layers = new Map<string, LoraLayer>();
  for (let block = 0; block < spec.blocks; block++) {
    const shapes = linearShapes(blockSpec(spec, block));
    for (const kind of kinds) {
      const [dOut, dIn] = shapes[kind]!;
      const A = values(rank * dIn, dIn ** -0.5), B = values(dOut * rank, size * rank ** -0.5);
      layers.set(`block.${block}.${kind}`, { rank, A, B });
    }
  }
  return { layers };
}
