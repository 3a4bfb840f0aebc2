/** The learning rate of each step, and which sequences it learns from. */
import { seededRandom, shuffled } from "../random.ts";
import type { RecoverOptions } from "./options.ts";

/**
 * A straight rise from 0 over the warm-up, times a half cosine from 1 to the final share.
 * @param step from 0 to steps - 1
 */
export function rateAt(
  step: number,
  steps: number,
  { learningRate, warmupShare, finalShare }: Pick<
    RecoverOptions,
    "learningRate" | "warmupShare" | "finalShare"
  >,
): number {
  const warm = Math.min(1, (step + 1) / Math.max(1, warmupShare * steps));
  const cosine = (1 + Math.cos(Math.PI * step / steps)) / 2;
  return learningRate * warm * (finalShare + (1 - finalShare) * cosine);
}

/** Steps that the wanted tokens take; at least one. */
export const stepCount = (
  { tokens, batch }: Pick<RecoverOptions, "tokens" | "batch">,
  length: number,
): number => Math.max(1, Math.ceil(tokens / (batch * length)));

/** Sequences of a step: all of them in random order, again and again, each time in another. */
export class SequenceOrder {
  readonly #epochs = new Map<number, number[]>();

  constructor(readonly count: number, readonly options: Pick<RecoverOptions, "batch" | "seed">) {}

  of(step: number): number[] {
    const { batch } = this.options;
    return Array.from({ length: batch }, (_, i) => {
      const at = step * batch + i;
      return this.#epoch(Math.floor(at / this.count))[at % this.count];
    });
  }

  #epoch(epoch: number): number[] {
    const known = this.#epochs.get(epoch);
    if (known) return known;
    const order = Array.from({ length: this.count }, (_, i) => i);
    const made = shuffled(order, seededRandom(this.options.seed + 0x9e37 * epoch));
    this.#epochs.set(epoch, made);
    return made;
  }
}
