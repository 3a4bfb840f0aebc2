/** What `bench engine` can time: the interface that own engine and peers share, and the prompts they are given. */

/** Something that can be timed; answers in tokens per second. */
export interface Contender {
  readonly name: string;
  readonly format: string;
  prefill(tokens: number): Promise<number>;
  /** One generation after a prompt of {@linkcode DECODE_PROMPT} tokens, without the first token. */
  decode(tokens: number): Promise<number>;
  /** All of `count` generations at once, prompts of {@linkcode DECODE_PROMPT} tokens included in the time. */
  streams(count: number, tokens: number): Promise<number>;
  close(): Promise<void>;
}

/** What a decode starts from: long enough to be text, short enough that attention costs nothing. */
export const DECODE_PROMPT = 8;

/** Prompts that no prefix cache knows: a new sequence of ids each time. */
export class Prompts {
  #seed = 1;
  constructor(readonly vocabSize: number) {}
  next(length: number): number[] {
    return Array.from({ length }, () => {
      this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
      // The high bits: the low ones of this generator repeat soon, with 259 ids every 256 tokens.
      return 3 + Math.floor(this.#seed / 2 ** 32 * (this.vocabSize - 3));
    });
  }
}
