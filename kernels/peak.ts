/** The loops of the `peak` module (templates/peak.ts), which find what a machine can do at most. */

/**
 * Arithmetic loops. `i16_q8`, `i16_q4`, `i32` and `f32` are the kernels' inner sequences from codes to sums; the others
 * fill one unit: vector additions, shuffles, the two multiply-adds, checked loads, and a mix that fills none.
 */
export const PEAK_LOOPS = [
  "vector",
  "shuffle",
  "dot16",
  "wide",
  "i16_q8",
  "i16_q4",
  "i32",
  "f32",
  "load",
  "mixed",
] as const;
export type PeakLoop = typeof PEAK_LOOPS[number];

/** Read loops `read_S_L`: S streams side by side, L of a cache line's four vectors loaded. */
export const READ_STREAMS = [[1, 4], [2, 4], [4, 4], [8, 4], [1, 1], [2, 1], [4, 1], [8, 1]] as const;
