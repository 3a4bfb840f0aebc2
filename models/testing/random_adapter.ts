/** LoRA adapters of random weights, and checkpoints that they are merged into: what an adapter must be equal to. */
import type { LoraAdapter, LoraLayer } from "../adapter.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { blockSpec, type LinearKind, linearShapes, type ModelSpec } from "../spec.ts";

/** Values in -size..size. */
function randomOf(seed: number) {
  let state = seed;
  return (length: number, size: number) =>
    Float32Array.from({ length }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return size * (state / 2 ** 31 - 1);
    });
}

/** An adapter of these kinds of layers; with `size` 1 its products are about half as large as the model's own. */
export function randomAdapter(
  spec: ModelSpec,
  { kinds, rank, seed = 1, size = 1 }: {
    readonly kinds: readonly LinearKind[];
    readonly rank: number;
    readonly seed?: number;
    readonly size?: number;
  },
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

/** The checkpoint with W + B A in place of W. */
export function merged(checkpoint: Checkpoint, { layers }: LoraAdapter): Checkpoint {
  const { spec, path, format, tensorBytes, tokenizerFiles } = checkpoint;
  return {
    spec,
    path,
    format,
    tensorBytes,
    tokenizerFiles,
    has: (role) => checkpoint.has(role),
    async read(role) {
      const weight = await checkpoint.read(role), lora = layers.get(role);
      if (!lora) return weight;
      const { rank, A, B } = lora, dIn = A.length / rank;
      const data = weight.data.map((w, i) => {
        const row = Math.floor(i / dIn), column = i % dIn;
        for (let r = 0; r < rank; r++) w += B[row * rank + r] * A[r * dIn + column];
        return w;
      });
      return { ...weight, data };
    },
    close: () => checkpoint.close(),
  };
}
