/**
 * Times contenders turn by turn (A B A B ...), because a machine's speed drifts between runs: medians of such samples
 * can be compared.
 */
import type { Contender } from "./contender.ts";
import { median } from "./spread.ts";

export interface TurnOptions {
  readonly promptTokens: number;
  readonly decodeTokens: number;
  readonly repeats: number;
  readonly onProgress?: (done: number, total: number, what: string) => void;
}

export interface Speed {
  readonly prefill_tokens_per_second: number;
  readonly decode_tokens_per_second: number;
}

/** One round warms up and is not counted. */
export async function takeTurns(contenders: readonly Contender[], options: TurnOptions): Promise<Speed[]> {
  const { promptTokens, decodeTokens, repeats, onProgress } = options;
  const samples = contenders.map(() => ({ prefill: [] as number[], decode: [] as number[] }));
  const total = (repeats + 1) * contenders.length;
  let done = 0;
  for (let round = 0; round <= repeats; round++) {
    for (const [i, contender] of contenders.entries()) {
      const prefill = await contender.prefill(promptTokens);
      const decode = await contender.decode(decodeTokens);
      if (round > 0) {
        samples[i].prefill.push(prefill);
        samples[i].decode.push(decode);
      }
      onProgress?.(++done, total, `${contender.name} ${contender.format}`);
    }
  }
  return samples.map((s) => ({
    prefill_tokens_per_second: median(s.prefill),
    decode_tokens_per_second: median(s.decode),
  }));
}
