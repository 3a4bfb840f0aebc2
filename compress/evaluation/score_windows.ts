/** Many windows through one engine, several at a time. */
import type { Engine } from "../../engine/types.ts";
import { KV_BLOCK_TOKENS } from "../../kernels/abi.ts";
import { scoredTokens, type TextWindow } from "./text_window.ts";

export interface ScoreOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Rows asked for at once: two steps' worth, so that the next step is full too while answers travel. One window of 512 at
 * a time took 47 steps where two take 33.
 */
const ROWS_IN_FLIGHT = 512;
/** Twice the sequences of a step (ARC-Easy: 41 steps; 58 with 18 in flight, 38 with 64 and 32 in a step). */
const MOST_IN_FLIGHT = 32;

/**
 * Negative log-likelihood of each window's scored tokens, summed: `[windows.length]`, natural log. Windows go to the engine
 * in order, so that what begins alike can follow what the prefix cache has.
 * @throws {OatmillError} cancelled, what the engine throws
 */
export async function scoreWindows(
  engine: Pick<Engine, "score">,
  windows: readonly TextWindow[],
  { signal, onProgress }: ScoreOptions = {},
): Promise<Float64Array> {
  const sums = new Float64Array(windows.length);
  let next = 0, done = 0;
  const lane = async () => {
    while (next < windows.length) {
      const i = next++, { ids, from } = windows[i];
      for (const nll of await engine.score(ids, { from, signal })) sums[i] += nll;
      onProgress?.(++done, windows.length);
    }
  };
  try {
    await Promise.all(Array.from({ length: lanesFor(windows) }, lane));
  } finally {
    next = windows.length; // after a failure no lane takes more
  }
  return sums;
}

function lanesFor(windows: readonly TextWindow[]): number {
  const rows = windows.reduce((n, w) => n + leastRows(w), 0) / windows.length;
  return Math.min(MOST_IN_FLIGHT, Math.max(2, Math.round(1 + ROWS_IN_FLIGHT / rows)));
}

/** Rows that no cache saves. */
const leastRows = ({ ids, from }: TextWindow): number =>
  ids.length - 1 - Math.floor(from / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS;

/** Sum of all windows, and how many tokens it is of. */
export async function scoreAll(
  engine: Pick<Engine, "score">,
  windows: readonly TextWindow[],
  options?: ScoreOptions,
): Promise<{ nll: number; scored: number }> {
  const sums = await scoreWindows(engine, windows, options);
  return {
    nll: sums.reduce((a, b) => a + b, 0),
    scored: windows.reduce((n, w) => n + scoredTokens(w), 0),
  };
}
