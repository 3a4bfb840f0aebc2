/** An engine whose predictions follow from the last token alone: what it must answer can be worked out by hand. */
import type { Engine, MeasureOptions } from "../../../engine/types.ts";

export class BigramEngine implements Pick<Engine, "score" | "logits" | "vocabSize" | "contextLength"> {
  /** What was asked, in order. */
  readonly asked: { readonly ids: readonly number[]; readonly from: number }[] = [];
  readonly vocabSize: number;

  /** @param probabilities of the next token, by token `[vocab][vocab]`; rows may be unnormalised */
  constructor(readonly probabilities: readonly (readonly number[])[], readonly contextLength = 64) {
    this.vocabSize = probabilities.length;
  }

  score(ids: readonly number[], { from = 0, signal }: MeasureOptions = {}): Promise<Float32Array> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    this.asked.push({ ids, from });
    const nll = (_: number, i: number) => {
      const row = this.probabilities[ids[from + i]];
      return -Math.log(row[ids[from + i + 1]] / row.reduce((a, b) => a + b, 0));
    };
    return Promise.resolve(Float32Array.from({ length: ids.length - 1 - from }, nll));
  }

  logits(ids: readonly number[], { from = ids.length - 1 }: MeasureOptions = {}): Promise<Float32Array> {
    this.asked.push({ ids, from });
    return Promise.resolve(
      Float32Array.from(ids.slice(from).flatMap((id) => this.probabilities[id].map(Math.log))),
    );
  }
}
