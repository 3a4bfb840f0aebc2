/** A checkpoint that an adapter is merged into: what serving the adapter must be equal to. */
import type { LoraAdapter } from "../adapter.ts";
import type { Checkpoint } from "../checkpoint.ts";

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
