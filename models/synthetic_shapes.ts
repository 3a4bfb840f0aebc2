/** Names of the shapes that a synthetic model can have; `tiny` ones are no real models but small enough for tests. */
export const SYNTHETIC_SHAPES = [
  "tiny",
  "smollm2-135m",
  "llama-3.2-1b",
  "phi-3-mini",
  "llama-2-7b",
  "tiny-encoder",
  "vit-b",
  "bert-base",
] as const;
export type SyntheticShape = typeof SYNTHETIC_SHAPES[number];
