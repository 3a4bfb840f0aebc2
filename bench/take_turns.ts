/**
 * Times contenders turn by turn, because a machine's speed drifts between runs: within a round, every contender does the
 * same work one after the other, so that the ratios of a round compare what stood side by side.
 */
import type { Contender } from "./contender.ts";
import type { Figures } from "./figures.ts";

export interface TurnOptions {
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly streams: number;
  readonly repeats: number;
  readonly onProgress?: (done: number, total: number, what: string) => void;
}

const WORK = {
  prefill: (c, o) => c.prefill(o.promptTokens),
  decode: (c, o) => c.decode(o.decodeTokens),
  streams: (c, o) => c.streams(o.streams, o.decodeTokens),
} as const satisfies Record<string, (contender: Contender, options: TurnOptions) => Promise<number>>;
export type Work = keyof typeof WORK;

/**
 * One round warms up and is not counted. Every other round goes through the contenders backwards (A B, B A), so that none
 * always follows the same one.
 * @returns tokens per second of each contender's rounds
 */
export async function takeTurns(
  contenders: readonly Contender[],
  options: TurnOptions,
): Promise<Figures<Work>[][]> {
  const { repeats, onProgress } = options;
  const rounds: Record<Work, number>[][] = contenders.map(() => []);
  const work = Object.keys(WORK) as Work[];
  const total = (repeats + 1) * work.length * contenders.length;
  let done = 0;
  for (let round = 0; round <= repeats; round++) {
    const order = [...contenders.keys()];
    if (round % 2 === 1) order.reverse();
    const figures = contenders.map(() => ({} as Record<Work, number>));
    for (const what of work) {
      for (const i of order) {
        figures[i][what] = await WORK[what](contenders[i], options);
        onProgress?.(++done, total, `${what} ${contenders[i].name} ${contenders[i].format}`);
      }
    }
    if (round > 0) figures.forEach((f, i) => rounds[i].push(f));
  }
  return rounds;
}
