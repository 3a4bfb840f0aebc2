/** How many jobs a step has, and how much memory they ask for, so how many run at once. */
import type { LinalgPool } from "../linalg/pool.ts";

/**
 * What a job takes, or its share of the pool's memory when that is more: where a step has fewer jobs than there are
 * threads, each then has several of them.
 * @param lanes jobs of one step
 */
export const jobBytes = (
  { memoryBytes }: Pick<LinalgPool, "memoryBytes">,
  bytes: number,
  lanes: number,
): number => Math.max(bytes, Math.floor(memoryBytes / lanes));

/** A lane's gradients may take this: they stand beside values, moments and best. */
const LANE_BYTES = 2 ** 30;
const MOST_LANES = 4;

/**
 * Sequences of one step whose gradients are summed in one place each: never by threads, so that a result does not depend
 * on their number.
 */
export function laneCount(vectors: readonly Float32Array[], batch: number): number {
  const values = vectors.reduce((sum, { length }) => sum + length, 0);
  const fitting = Math.floor(LANE_BYTES / (4 * Math.max(1, values)));
  return Math.max(1, Math.min(MOST_LANES, batch, fitting));
}
