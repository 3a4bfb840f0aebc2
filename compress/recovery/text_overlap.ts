/** Whether token sequences have text in common: what a model is evaluated on it must not have been trained on. */

/** Tokens in a row that two texts have by chance once in a book: sentences repeat, pages do not. */
const RUN_TOKENS = 32;

export class TextOverlap {
  readonly #run: number;
  readonly #known = new Set<number>();

  /** @param held sequences that others are compared with */
  constructor(held: readonly Int32Array[]) {
    this.#run = held.reduce((shortest, ids) => Math.min(shortest, ids.length), RUN_TOKENS);
    for (const ids of held) for (const hash of this.#hashes(ids)) this.#known.add(hash);
  }

  /** Whether a run of {@linkcode RUN_TOKENS} (of the shortest one, where that is less) stands in both, wherever. */
  has(ids: Int32Array): boolean {
    if (this.#known.size === 0) return false;
    for (const hash of this.#hashes(ids)) if (this.#known.has(hash)) return true;
    return false;
  }

  /** Of every run, in 53 bits. */
  *#hashes(ids: Int32Array): Generator<number> {
    for (let from = 0; from + this.#run <= ids.length; from++) {
      let a = 0x811c9dc5, b = 0x9e3779b9;
      for (let i = from; i < from + this.#run; i++) {
        a = Math.imul(a ^ ids[i], 0x01000193);
        b = Math.imul(b + ids[i] | 0, 0x85ebca6b) ^ (b >>> 15);
      }
      yield (a >>> 0) * 2 ** 21 + (b >>> 11);
    }
  }
}
