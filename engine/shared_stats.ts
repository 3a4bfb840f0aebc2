/**
 * The leader's counters in shared memory: it writes them after every step, the main thread reads them when asked. In the
 * messages of a decode step they were half of what was copied (70 us, 1.5 % of a token of SmolLM2-135M).
 */
import type { EngineStats } from "./types.ts";

/** What the leader knows; the rest is fixed when the engine starts. */
export type WorkerStats = Omit<EngineStats, "threads" | "memoryBytes">;

/** Places of the values. The mapped type keeps the list complete. */
const PLACE: Readonly<Record<keyof WorkerStats, number>> = {
  running: 0,
  waiting: 1,
  kvBlocksUsed: 2,
  kvBlocksTotal: 3,
  kvBlocksCached: 4,
  prefixQueries: 5,
  prefixHits: 6,
  prefixTokens: 7,
  draftedTokens: 8,
  acceptedTokens: 9,
  stepsTotal: 10,
  batchTokens: 11,
};
const NAMES = Object.keys(PLACE) as (keyof WorkerStats)[];

/** One writer, any readers. Values are written one by one: a reader may see them from two steps. */
export class SharedStats {
  readonly #values: Float64Array;

  /** @param buffer of another instance, or a new one */
  constructor(readonly buffer = new SharedArrayBuffer(8 * NAMES.length)) {
    this.#values = new Float64Array(buffer);
  }

  write(stats: WorkerStats): void {
    for (const name of NAMES) this.#values[PLACE[name]] = stats[name];
  }

  read(): WorkerStats {
    // Cast: every name has a place.
    return Object.fromEntries(
      NAMES.map((name) => [name, this.#values[PLACE[name]]]),
    ) as unknown as WorkerStats;
  }
}
